"""``python -m audit_service`` serves; ``migrate`` brings its database to the newest schema."""

from audit_service.bootstrap import build
from audit_service.settings import AuditSettings
from chassis.process import ServiceDefinition, command_line

SERVICE = ServiceDefinition(
    name="audit", package="audit_service", settings=AuditSettings, build=build
)

cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
