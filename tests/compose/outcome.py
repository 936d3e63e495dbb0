"""What must hold of the containers once the clients are done."""

import asyncio
from functools import partial

from chassis.testing import eventually
from tests.compose.system import System
from tests.declared import declared
from tests.e2e.people import Operator, Person, poll
from tests.faults.workload import Workload


async def until_promised(load: Workload, count: int, within_s: float = 60.0) -> None:
    """Wait until so many clients have been answered that their sign-up is accepted."""

    async def are() -> bool:
        return len(load.promised) >= count

    await eventually(are, within_s=within_s)


async def has_arrived(operator: Operator, person: Person) -> None:
    """Wait until a sign-up is an account, an audit record, and a delivery where there are any."""
    await poll(lambda: operator.account_of(person))
    records = await poll(lambda: operator.audit_records_of(person))
    if declared("notification"):
        await poll(lambda: operator.deliveries_of(records[0]["event_id"]))


async def have_accounts(operator: Operator, load: Workload) -> None:
    """Check each answer that the clients had, and wait until each has what was promised."""
    assert load.wrong == []
    assert load.promised
    for user_id in load.promised:
        person = Person(operator.gateway, id=str(user_id))
        await poll(partial(operator.account_of, person))


async def nothing_is_lost(system: System, operator: Operator, load: Workload) -> None:
    """Check what the clients were promised, and then all that is there."""
    await have_accounts(operator, load)
    assert "nothing is lost" in await asyncio.to_thread(system.verify)
