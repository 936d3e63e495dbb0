"""Appends events to the outbox of the users service, as its commands do."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import text

from chassis.persistence.database import Database
from chassis.persistence.outbox import Outbox
from contracts.events import IntegrationEvent
from contracts.topics import USERS_USER
from contracts.users import UsersEventWithheldV1, UserSignedUpV1
from tests.faults.harness import System

_SET_SEQUENCE: Final = text("UPDATE users SET sequence = :sequence WHERE id = :subject")


async def append_to_outbox(
    system: System, subject: UUID, events: Mapping[int, IntegrationEvent]
) -> None:
    """Publish events of one subject, by their sequences; violations of it count as explained."""
    system.made_up.add(str(subject))
    outbox = Outbox("/users", _utc_now)
    for sequence, event in events.items():
        outbox.append(
            event, topic=USERS_USER, subject=subject, sequence=sequence, occurred_at=_utc_now()
        )
    engine = Database(system.cluster.postgres_url("users"), pool_size=1, application_name="faults")
    try:
        async with engine.begin() as connection:
            await outbox.flush(connection)
            await connection.execute(_SET_SEQUENCE, {"sequence": max(events), "subject": subject})
    finally:
        await engine.close()


def sign_up_of(user: UUID, username: str = "another") -> IntegrationEvent:
    """Return an event with several subscribers; its name may be longer than the contract allows."""
    return UserSignedUpV1.model_construct(user_id=user, username=username)


def withheld() -> IntegrationEvent:
    """Return an event without subscribers: consumers count it and pass over it."""
    return UsersEventWithheldV1(withheld_id=uuid4(), withheld_type="users.user-signed-up.v1")


def _utc_now() -> datetime:
    return datetime.now(UTC)
