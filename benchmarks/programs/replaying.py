"""The accounts service with another subscriber, which does nothing and begins now.

``python -m benchmarks.programs.replaying log-1. bench-2`` consumes ``log-1.users.user`` in the
group ``bench-2``: the service's own subscribers from its beginning on, which for the other is far
behind.
"""

import sys
from dataclasses import replace
from typing import Final

from accounts_service import __main__ as accounts
from accounts_service import bootstrap
from accounts_service.application.ports import AccountsWork
from chassis.consuming.subscribers import EventSubscriber, Start
from contracts.envelope import Envelope
from contracts.topics import TOPICS, USERS_USER
from contracts.users import UserSignedUpV1

SIBLING: Final = "bench.sibling"


async def _do_nothing(_work: AccountsWork, _event: UserSignedUpV1, _envelope: Envelope) -> None:
    """Leave it at what every subscriber does: its progress and its inbox."""


if __name__ == "__main__":
    prefix, group = sys.argv[1:]
    for topic in TOPICS:
        object.__setattr__(topic, "name", f"{prefix}{topic.name}")
    sibling = EventSubscriber[AccountsWork](
        SIBLING, USERS_USER, {UserSignedUpV1: _do_nothing}, starts=Start.NOW
    )
    opening = bootstrap.SERVICE.subscribers
    vars(bootstrap)["SERVICE"] = replace(
        bootstrap.SERVICE,
        name=group,
        subscribers=lambda settings: [*opening(settings), sibling],
    )
    accounts.cli(args=[])
