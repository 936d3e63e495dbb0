"""Runs the stand-in: ``python -m notification_service.slack_stand_in``."""

from services.healthy import exit_if_asked
from services.importing import importing
from services.stopping import exit_at_sigterm

if __name__ == "__main__":
    exit_at_sigterm()
    exit_if_asked("slack-stand-in")

with importing():
    from chassis.process.run import command_line
    from notification_service.slack_stand_in.bootstrap import build
    from notification_service.slack_stand_in.settings import StandInSettings

cli = command_line("slack-stand-in", StandInSettings, build)

if __name__ == "__main__":
    cli()
