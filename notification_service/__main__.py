"""``python -m notification_service`` serves; ``migrate`` brings its database up."""

from chassis.process import ServiceDefinition, command_line
from notification_service.bootstrap import build, operable
from notification_service.settings import NotificationSettings

SERVICE = ServiceDefinition(
    name="notification",
    package="notification_service",
    settings=NotificationSettings,
    build=build,
    operable=operable,
)
cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
