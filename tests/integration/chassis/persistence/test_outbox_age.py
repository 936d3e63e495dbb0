"""Commands that publish are refused while the outbox is too old, and no others."""

from uuid import UUID, uuid4

import pytest

from chassis.persistence.database import Connection, Database
from chassis.persistence.outbox import Outbox
from chassis.persistence.outbox_age import OutboxAge, OutboxTooOld
from chassis.persistence.transactor import Transact, Transactor
from contracts.topics import Topic
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import rows, topic_of_its_own, utc_now

LIMIT_S = 60.0
AGE = "UPDATE outbox SET created_at = clock_timestamp() - interval '90 s' WHERE aggregateid = $1"


class Publishing:
    """A unit of work that publishes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outbox = Outbox("/test", utc_now)

    def publish(self, topic: Topic, subject: UUID) -> None:
        self._outbox.append(
            UserSignedUpV1(user_id=subject, username="ada"),
            topic=topic,
            subject=subject,
            sequence=1,
            occurred_at=utc_now(),
        )

    async def flush(self) -> None:
        await self._outbox.flush(self._connection)


@pytest.fixture
def transact(engine: Database) -> Transact[Publishing]:
    return Transactor(engine, Publishing)


async def publish(transact: Transact[Publishing], subject: UUID) -> None:
    async def body(work: Publishing) -> None:
        work.publish(topic_of_its_own(), subject)

    await transact(body)


class TestAnOutbox:
    async def test_that_is_too_old_refuses_commands_that_publish_until_it_is_not(
        self, database: str, engine: Database, transact: Transact[Publishing]
    ) -> None:
        age, old = OutboxAge(engine, LIMIT_S), uuid4()
        limited = age.limited(transact)
        await publish(limited, old)
        await age.step()
        await publish(limited, uuid4())

        await rows(database, AGE, str(old))
        await age.step()

        with pytest.raises(OutboxTooOld):
            await publish(limited, uuid4())
        assert await limited(_nothing) == "carried out"
        # Consumers and operators publish on: what they handle waits nowhere else.
        await publish(transact, uuid4())
        assert (age.trouble() or "").startswith("commands are refused: events have waited for 9")

        await rows(database, "DELETE FROM outbox WHERE aggregateid = $1", str(old))
        await age.step()

        await publish(limited, uuid4())
        assert age.trouble() is None

    async def test_is_as_old_as_what_waits_for_kafka_not_for_an_operator(
        self, database: str, engine: Database, transact: Transact[Publishing]
    ) -> None:
        age, stuck = OutboxAge(engine, LIMIT_S), uuid4()
        await publish(transact, stuck)
        await rows(database, AGE, str(stuck))
        await rows(
            database,
            "INSERT INTO outbox_set_aside SELECT (o.*).*, 'Refused', '', now() FROM outbox AS o",
        )

        await age.step()

        assert age.trouble() is None

    async def test_without_a_limit_refuses_nothing(
        self, database: str, engine: Database, transact: Transact[Publishing]
    ) -> None:
        age, old = OutboxAge(engine, None), uuid4()
        limited = age.limited(transact)
        await publish(limited, old)
        await rows(database, AGE, str(old))
        await age.step()

        await publish(limited, uuid4())

    async def test_that_can_not_be_asked_leaves_the_answer_as_it_was(
        self, database: str, engine: Database, transact: Transact[Publishing]
    ) -> None:
        age, old = OutboxAge(engine, LIMIT_S), uuid4()
        await publish(transact, old)
        await rows(database, AGE, str(old))
        await age.step()
        await rows(database, "ALTER TABLE outbox RENAME TO elsewhere")

        await age.step()

        assert age.trouble() is not None


async def _nothing(_work: Publishing) -> str:
    return "carried out"
