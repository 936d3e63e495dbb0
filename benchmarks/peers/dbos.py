"""DBOS Transact: a sign-up as a durable workflow on PostgreSQL, without Kafka."""

from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figure import Values
from benchmarks.journeys import measured, over_lines, plain_databases, variables, without_ours
from benchmarks.peers.environments import environment

NAME: Final = "DBOS Transact 3.4.0"
DOES_LESS: Final = (
    "one process for everything, no Kafka, no gateway and no HTTP except Slack's, no schema is"
    " checked; it answers once the workflow is stored, before the user exists"
)

_PACKAGES: Final = ("dbos==3.4.0", "aiohttp==3.14.5", "sqlalchemy==2.1.9", "uvloop==0.23.0")


async def journeys(bench: Bench) -> Values:
    """Measure the journeys of sign-ups as workflows of one process, with a database a service."""
    python = str(await environment("dbos", _PACKAGES))
    databases = await plain_databases(bench)
    surroundings = {
        **variables(databases),
        "SYSTEM_DATABASE_URL": await bench.database(),
        "SLACK_URL": bench.cluster.url("slack-stand-in"),
    }
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(without_ours(bench))
        program = await stack.enter_async_context(
            bench.program(
                ["benchmarks.programs.dbos_journey"], surroundings, python=python, name="dbos"
            )
        )
        sign_up = await stack.enter_async_context(over_lines(int(await program.line())))
        return await measured(bench, sign_up, databases)
