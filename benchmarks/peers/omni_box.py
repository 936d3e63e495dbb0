"""omni-box: an outbox and an inbox on aiokafka, asyncpg and SQLAlchemy, for four small services."""

from contextlib import AsyncExitStack
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figure import Values
from benchmarks.journeys import measured, over_lines, plain_databases, variables, without_ours
from benchmarks.peers.environments import environment
from benchmarks.topics import fresh_topic

NAME: Final = "omni-box 0.3.1"
DOES_LESS: Final = (
    "no gateway and no HTTP except Slack's, no schema is checked, nothing can be parked; an outbox"
    " row stays; the message to Slack is sent while a transaction is open"
)

_PACKAGES: Final = (
    "omni-box[postgres,kafka]==0.3.1",
    "aiohttp==3.14.5",
    "aiokafka==0.14.0",
    "asyncpg==0.32.0",
    "sqlalchemy[asyncio]==2.1.9",
    "uvloop==0.23.0",
)
_PROGRAM: Final = "benchmarks.programs.omni_box_journey"


async def journeys(bench: Bench) -> Values:
    """Measure the journeys of sign-ups through four processes, each with a database."""
    python = str(await environment("omni-box", _PACKAGES, at_least=(3, 12)))
    databases = await plain_databases(bench)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(without_ours(bench))
        topics = [
            await stack.enter_async_context(fresh_topic(bench, stem))
            for stem in ("user", "task", "account")
        ]
        surroundings = {
            **variables(databases),
            "KAFKA_BOOTSTRAP": bench.cluster.kafka_bootstrap,
            "SLACK_URL": bench.cluster.url("slack-stand-in"),
            "TOPICS": ",".join(topics),
        }
        lines = {}
        for name in ("users", "accounts", "audit", "notification"):
            program = await stack.enter_async_context(
                bench.program(
                    [_PROGRAM, name], surroundings, python=python, name=f"omni-box-{name}"
                )
            )
            lines[name] = await program.line()
            if name == "users":
                await program.line()
        sign_up = await stack.enter_async_context(over_lines(int(lines["users"])))
        return await measured(bench, sign_up, databases)
