"""The gateway as a process: ``python -m gateway``."""

from typing import Final

from chassis.process import ServiceDefinition, command_line
from gateway.bootstrap import build
from gateway.settings import GatewaySettings

SERVICE: Final = ServiceDefinition(
    name="gateway", package="gateway", settings=GatewaySettings, build=build
)
cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
