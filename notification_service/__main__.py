"""``python -m notification_service`` serves; its commands are for those who run it."""

from chassis.operations.terminal import Terminal
from chassis.process import ServiceDefinition, command_line
from notification_service.bootstrap import build, operable
from notification_service.commands import deliveries_commands
from notification_service.settings import NotificationSettings

SERVICE = ServiceDefinition(
    name="notification",
    package="notification_service",
    settings=NotificationSettings,
    build=build,
    operable=operable,
)
cli = command_line(SERVICE)
cli.add_command(deliveries_commands(Terminal(NotificationSettings, operable)))

if __name__ == "__main__":
    cli()
