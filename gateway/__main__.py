"""The gateway as a process: ``python -m gateway``."""

from services.healthy import exit_if_asked
from services.importing import importing
from services.stopping import exit_at_sigterm

if __name__ == "__main__":
    exit_at_sigterm()
    exit_if_asked("gateway")

with importing():
    from chassis.process.run import command_line
    from gateway.bootstrap import build
    from gateway.settings import GatewaySettings

cli = command_line("gateway", GatewaySettings, build)

if __name__ == "__main__":
    cli()
