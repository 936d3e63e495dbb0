"""``python -m audit_service`` serves; ``migrate`` brings its database to the newest schema."""

from services.healthy import exit_if_asked
from services.importing import importing
from services.stopping import exit_at_sigterm

if __name__ == "__main__":
    exit_at_sigterm()
    exit_if_asked("audit")

with importing():
    from audit_service.bootstrap import SERVICE, build
    from chassis.process.service import service_command_line

cli = service_command_line(SERVICE, build)

if __name__ == "__main__":
    cli()
