"""``python -m audit_service`` serves; ``migrate`` brings its database to the newest schema."""

from audit_service.bootstrap import build, operable
from audit_service.settings import AuditSettings
from chassis.process import ServiceDefinition, command_line

SERVICE = ServiceDefinition(
    name="audit",
    package="audit_service",
    settings=AuditSettings,
    build=build,
    operable=operable,
)

cli = command_line(SERVICE)

if __name__ == "__main__":
    cli()
