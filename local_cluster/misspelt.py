"""Names settings of the caller's environment that look misspelt."""

from collections.abc import Iterator
from importlib import import_module

from chassis.settings import ProcessSettings, misspelt
from local_cluster.settings import Settings
from services import SERVICES, DeclaredService


def misspelt_settings() -> Iterator[str]:
    """Yield a line for each variable that is no setting of a process or of ours, but nearly."""
    yield from misspelt(Settings)
    for service in SERVICES:
        yield from misspelt(settings_of(service))


def settings_of(service: DeclaredService) -> type[ProcessSettings]:
    """Return the settings class of a service's own module ``settings``."""
    # Its settings only, by the name of the module: the launcher imports nothing else of a service.
    module = import_module(f"{service.module}.settings")
    (settings,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, ProcessSettings)
        and each.__module__ == module.__name__
    )
    return settings
