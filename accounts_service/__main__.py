"""``python -m accounts_service`` serves; ``migrate`` brings its database up first."""

from accounts_service.bootstrap import build, operable
from accounts_service.settings import AccountsSettings
from chassis.process import ServiceDefinition, command_line

SERVICE = ServiceDefinition(
    name="accounts",
    package="accounts_service",
    settings=AccountsSettings,
    build=build,
    operable=operable,
)

cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
