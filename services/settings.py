"""Settings of which there is one for each service, such as its port."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import Field, create_model
from pydantic_settings import BaseSettings

from services import DeclaredService

S = TypeVar("S", bound=BaseSettings)

ONE_FOR_EACH: Final = "one_for_each"
"""The extra of a field of which there is one for each service; its value is the suffix."""


def one_for_each(
    services: Iterable[DeclaredService],
    suffix: str,
    type_: Any,
    arguments_of: Callable[[DeclaredService], Mapping[str, Any]],
) -> Callable[[type[S]], type[S]]:
    """Add a field to the decorated class for each of these services.

    A type checker does not see these fields: the class has a method that reads them by their names.

    :param suffix: the field of ``slack-stand-in`` is ``slack_stand_in`` and this
    :param arguments_of: returns the arguments of a service's ``Field``
    """

    def field_of(service: DeclaredService) -> Any:
        return Field(json_schema_extra={ONE_FOR_EACH: suffix}, **arguments_of(service))

    def decorate(settings: type[S]) -> type[S]:
        added: dict[str, Any] = {
            f"{each.identifier}{suffix}": (type_, field_of(each)) for each in services
        }
        return create_model(
            settings.__name__,
            __base__=settings,
            __module__=settings.__module__,
            __doc__=settings.__doc__,
            **added,
        )

    return decorate
