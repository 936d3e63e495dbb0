"""What must hold of the containers once the clients are done."""

import asyncio
from functools import partial

from tests.compose.system import System
from tests.e2e.people import Operator, Person, poll
from tests.faults.workload import Workload


async def nothing_is_lost(system: System, operator: Operator, load: Workload) -> None:
    """Check each answer that the clients had, and then all that is there."""
    assert load.wrong == []
    assert load.promised
    for user_id in load.promised:
        person = Person(operator.gateway, id=str(user_id))
        await poll(partial(operator.account_of, person))
    assert "nothing is lost" in await asyncio.to_thread(system.verify)
