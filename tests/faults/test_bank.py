"""Money goes round while the service that moves it is killed: none is lost, and none is made."""

import asyncio
import os
import random
import secrets
import signal
import time
from contextlib import suppress

import httpx
import pytest

from tests.faults.bank import FIRST_MINOR_UNITS, Bank
from tests.faults.harness import System
from tests.faults.measured import print_measured

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("bank")]

CUSTOMERS = 10
CLIENTS = 8
POINTS = ("command.before-commit", "command.after-commit")


async def kill_at_random(system: System, chosen: random.Random, until_s: float) -> list[str]:
    """Kill the accounts service at any moment and around its commits; return how."""
    kills: list[str] = []
    while time.monotonic() < until_s:
        await asyncio.sleep(chosen.uniform(1.5, 5))
        if chosen.random() < 0.5:
            point = chosen.choice(POINTS)
            system.failpoints.arm(point, f"kill {chosen.randint(1, 5)}", service="accounts")
            kills.append(point)
        elif pid := system.cluster.processes()["accounts"].pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills.append("at random")
    system.failpoints.disarm()
    return kills


async def test_money_that_goes_round_while_its_service_dies_stays_what_it_was(
    system: System, outage_s: float
) -> None:
    seed = int(os.environ.get("FAULTS_SEED", secrets.randbelow(1_000_000)))
    bank = Bank(system, random.Random(seed))  # noqa: S311 - it must be repeatable, not secret
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=CLIENTS)) as client:
        await bank.open(client, CUSTOMERS)
        until_s = time.monotonic() + outage_s / 2

        async def go_round() -> None:
            while time.monotonic() < until_s:
                await bank.move(client)

        killing = asyncio.create_task(
            kill_at_random(system, random.Random(seed), until_s)  # noqa: S311
        )
        await asyncio.gather(*(go_round() for _ in range(CLIENTS)))
        kills = await killing

    print_measured("moved money", [float(len(bank.moved))], unit="commands")
    print_measured("were sent again", [float(bank.repeated)], unit="commands")
    print_measured("killed", [float(len(kills))], unit="times")
    context = f"seed {seed}, logs: {system.logs}"
    balances = await bank.balances()
    assert not bank.wrong, f"{bank.wrong}\n{context}"
    assert sum(balances) == CUSTOMERS * FIRST_MINOR_UNITS, context
    assert min(balances) >= 0, context
    # Every key was answered at last, so each of them moved money once.
    assert sorted(bank.moved) == sorted(await bank.transactions()), context
    assert kills
    assert bank.moved
    await system.assert_nothing_is_lost()
