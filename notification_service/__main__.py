"""``python -m notification_service`` serves; its commands are for operators."""

from services.healthy import exit_if_asked
from services.importing import importing
from services.stopping import exit_at_sigterm

if __name__ == "__main__":
    exit_at_sigterm()
    exit_if_asked("notification")

with importing():
    from chassis.operations.commands.context import CommandContext
    from chassis.operations.commands.derived import group_of
    from chassis.process.service import service_command_line
    from notification_service.bootstrap import SERVICE, build
    from notification_service.operations import OPERATIONS

cli = service_command_line(SERVICE, build)
cli.add_command(
    group_of(
        "deliveries",
        "Which messages were planned, and how far each has come.",
        OPERATIONS,
        CommandContext(SERVICE),
    )
)

if __name__ == "__main__":
    cli()
