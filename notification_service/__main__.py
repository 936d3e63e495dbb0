"""``python -m notification_service`` serves; its commands are for those who run it."""

from chassis.operations.commands.context import CommandContext
from chassis.process.service import service_command_line
from notification_service.bootstrap import SERVICE, build
from notification_service.commands import deliveries_commands

cli = service_command_line(SERVICE, build)
cli.add_command(deliveries_commands(CommandContext(SERVICE)))

if __name__ == "__main__":
    cli()
