"""Settings of which there is one for each service, such as its port."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import create_model
from pydantic_settings import BaseSettings

from services import DeclaredService

S = TypeVar("S", bound=BaseSettings)


def one_for_each(
    services: Iterable[DeclaredService],
    suffix: str,
    field_of: Callable[[DeclaredService], tuple[Any, Any]],
) -> Callable[[type[S]], type[S]]:
    """Add a field to the decorated class for each of these services.

    A type checker does not see these fields: the class has a method that reads them by their names.

    :param suffix: the field of ``slack-stand-in`` is ``slack_stand_in`` and this
    :param field_of: returns the type of a service's field, and the field
    """

    def decorate(settings: type[S]) -> type[S]:
        added: dict[str, Any] = {f"{each.identifier}{suffix}": field_of(each) for each in services}
        return create_model(
            settings.__name__,
            __base__=settings,
            __module__=settings.__module__,
            __doc__=settings.__doc__,
            **added,
        )

    return decorate
