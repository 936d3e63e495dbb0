"""Runs the stand-in: ``python -m notification_service.slack_stand_in``."""

from chassis.process import ServiceDefinition, command_line
from notification_service.slack_stand_in.bootstrap import build
from notification_service.slack_stand_in.settings import StandInSettings

SERVICE = ServiceDefinition(
    name="slack-stand-in",
    package="notification_service.slack_stand_in",
    settings=StandInSettings,
    build=build,
)
cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
