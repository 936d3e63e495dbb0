"""Events put into the outbox of users, as a command of theirs would have put them there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import text

from chassis.persistence.database import create_engine
from chassis.persistence.outbox import Outbox
from contracts.events import IntegrationEvent
from contracts.topics import USERS_USER
from contracts.users import UsersEventWithheldV1, UserSignedUpV1
from tests.faults.harness import System

_NUMBERED: Final = text("UPDATE users SET sequence = :sequence WHERE id = :subject")


async def tell(system: System, subject: UUID, events: Mapping[int, IntegrationEvent]) -> None:
    """Publish events of one subject, by their numbers; all that is odd about it is explained."""
    system.made_up.add(str(subject))
    outbox = Outbox("/users", _utc_now)
    for sequence, event in events.items():
        outbox.append(
            event, topic=USERS_USER, subject=subject, sequence=sequence, occurred_at=_utc_now()
        )
    engine = create_engine(
        system.cluster.postgres_url("users"), pool_size=1, application_name="faults"
    )
    try:
        async with engine.begin() as connection:
            await outbox.flush(connection)
            await connection.execute(_NUMBERED, {"sequence": max(events), "subject": subject})
    finally:
        await engine.dispose()


def sign_up_of(user: UUID, username: str = "another") -> IntegrationEvent:
    """Return an event that many wait for; the name may be longer than the contract allows."""
    return UserSignedUpV1.model_construct(user_id=user, username=username)


def nobody_waits_for() -> IntegrationEvent:
    """Return an event that consumers count and pass over."""
    return UsersEventWithheldV1(withheld_id=uuid4(), withheld_type="users.user-signed-up.v1")


def _utc_now() -> datetime:
    return datetime.now(UTC)
