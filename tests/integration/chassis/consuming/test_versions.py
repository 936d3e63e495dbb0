"""A newer version of an event beside an older reader, and a reader that is moved to it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.consuming.subscribers import Start
from chassis.testing import FakeRecord
from contracts.envelope import EncodedEvent
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import (
    UserSignedUpV2,
    in_both_versions,
    rows,
    schema,
    signed_up,
    subscriber,
    with_wrong_data,
)
from tests.integration.chassis.service import TOPIC, Service, records_of

Models = Sequence[type[UserSignedUpV1]]

V1: Models = (UserSignedUpV1,)
V2: Models = (UserSignedUpV2,)
BOTH: Models = (UserSignedUpV1, UserSignedUpV2)


class UserSignedUpV3(UserSignedUpV1):
    event_type = "users.user-signed-up.v3"


class Reader:
    """A subscriber whose process is replaced by one with other handlers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.name = f"test.{uuid4().hex[:8]}"
        self._next_offset = 0

    async def take(
        self,
        models: Models,
        *events: EncodedEvent | FakeRecord,
        starts: Start = Start.BEGINNING,
    ) -> None:
        """Have a new process, with handlers for these versions, process a chunk."""
        records = [
            replace(each if isinstance(each, FakeRecord) else records_of(each)[0], offset=offset)
            for offset, each in enumerate(events, start=self._next_offset)
        ]
        self._next_offset += len(records)
        reader = subscriber(self.name, TOPIC, models=models, starts=starts)
        await self.service.process(await self.service.processor(reader), records)

    async def handled(self) -> list[int]:
        return [sequence for _, sequence in await self.service.handled(self.name)]

    async def parked(self) -> list[tuple[int, str]]:
        """Return offset and reason of each parked event."""
        return [each[:2] for each in await self.service.parked(self.name)]

    async def kept(self) -> list[list[int] | None]:
        """Return what is kept of each subject's handled facts."""
        query = "SELECT handled_sequences FROM inbox WHERE subscriber = $1"
        return [row[0] for row in await rows(self.service.database, query, self.name)]

    def counted(self, outcome: str) -> float:
        labels = {"subscriber": self.name, "outcome": outcome}
        return REGISTRY.get_sample_value("consumer_events_total", labels) or 0


@pytest.fixture
async def reader(database: str) -> AsyncIterator[Reader]:
    async with schema(database) as engine:
        yield Reader(Service(database, engine))


def of_v2(subject: UUID, sequence: int) -> EncodedEvent:
    return signed_up(subject, sequence, model=UserSignedUpV2)


class TestAVersionWithoutAHandler:
    async def test_is_passed_over_and_holds_up_nothing(self, reader: Reader) -> None:
        ada = uuid4()

        await reader.take(V1, signed_up(ada, 1), of_v2(ada, 2), signed_up(ada, 3))

        assert await reader.handled() == [1, 3]
        assert await reader.parked() == []
        assert reader.counted("other-version") == reader.counted("no-handled-version") == 1

    async def test_is_logged_once_for_each_type(self, reader: Reader) -> None:
        events = [of_v2(uuid4(), 1) for _ in range(3)]

        with capture_logs() as lines:
            await reader.take(V1, *events)

        assert [line for line in lines if line["event"] == "version-passed-over"] == [
            {
                "event": "version-passed-over",
                "log_level": "warning",
                "subscriber": reader.name,
                "type": "users.user-signed-up.v2",
                "handled_in_another": False,
            }
        ]

    async def test_is_parked_where_its_envelope_is_invalid(self, reader: Reader) -> None:
        [record] = records_of(of_v2(uuid4(), 1))
        assert record.value is not None

        await reader.take(V1, replace(record, value=record.value[:-1]))

        assert await reader.parked() == [(0, "not-understood")]

    async def test_is_parked_behind_an_earlier_event_that_is(self, reader: Reader) -> None:
        ada = uuid4()

        await reader.take(V1, with_wrong_data(signed_up(ada, 1)), of_v2(ada, 2))

        assert await reader.parked() == [(0, "not-understood"), (1, "behind")]

    async def test_is_parked_as_a_fork_where_it_is_one(self, reader: Reader) -> None:
        ada = uuid4()

        await reader.take(V1, signed_up(ada, 1), of_v2(ada, 1))

        assert await reader.parked() == [(1, "forked")]


class TestAFactInTwoVersions:
    @pytest.mark.parametrize("models", [V1, V2, BOTH], ids=["V1", "V2", "both"])
    @pytest.mark.parametrize("together", [True, False], ids=["one-chunk", "a-chunk-each"])
    async def test_is_handled_once_in_the_newest_that_has_a_handler(
        self, reader: Reader, models: Models, *, together: bool
    ) -> None:
        first, second = in_both_versions(uuid4(), 1)

        if together:
            await reader.take(models, first, second)
        else:
            await reader.take(models, first)
            await reader.take(models, second)

        assert await reader.handled() == [1 if models is V1 else 2]
        assert await reader.parked() == []
        assert await reader.kept() == [None]
        assert reader.counted("other-version") == 1
        assert reader.counted("no-handled-version") == 0

    async def test_costs_no_write_where_both_come_in_one_chunk(self, reader: Reader) -> None:
        # A trigger that refuses any change of the column.
        await rows(
            reader.service.database,
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'written'; END $$",
        )
        await rows(
            reader.service.database,
            "CREATE TRIGGER refused BEFORE UPDATE OF handled_sequences ON inbox"
            " FOR EACH ROW EXECUTE FUNCTION refuse()",
        )

        await reader.take(V1, *in_both_versions(uuid4(), 1), signed_up(uuid4(), 1))

        assert await reader.handled() == [1, 1]
        assert await reader.parked() == []

    async def test_that_v1_was_handled_of_is_not_handled_again_as_v2(self, reader: Reader) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)

        await reader.take(V1, first)
        assert await reader.kept() == [[1]]
        await reader.take(V2, second, *in_both_versions(ada, 3))

        assert await reader.handled() == [1, 4]
        assert await reader.parked() == []
        assert await reader.kept() == [None]
        assert reader.counted("already-handled") == 1

    async def test_that_began_before_the_reader_was_moved_back_is_parked_not_missed(
        self, reader: Reader
    ) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)

        await reader.take(V2, first)
        await reader.take(V1, second, signed_up(ada, 3))

        assert await reader.handled() == []
        assert await reader.parked() == [(1, "version-missed"), (2, "behind")]
        query = "SELECT error_message FROM parked WHERE sequence = 2"
        [row] = await rows(reader.service.database, query)
        assert row["error_message"].startswith(f"{reader.name} has no handler for this version")

    async def test_of_which_the_first_version_was_withheld_is_parked_not_missed(
        self, reader: Reader
    ) -> None:
        ada = uuid4()
        versions = {1: 1, 2: 2}
        withheld = signed_up(ada, 1, model=_OfAnotherType)

        await reader.take(V1, withheld, signed_up(ada, 2, model=UserSignedUpV2, versions=versions))

        assert await reader.parked() == [(1, "version-missed")]

    async def test_is_dropped_when_both_versions_come_again(self, reader: Reader) -> None:
        both = in_both_versions(uuid4(), 1)

        await reader.take(V1, *both)
        await reader.take(V2, *both)

        assert await reader.handled() == [1]
        assert await reader.parked() == []
        assert reader.counted("dropped") == 2


class _OfAnotherType(UserSignedUpV1):
    event_type = "users.event-withheld.v1"


class TestAFactInTwoVersionsThatComesLate:
    @pytest.mark.parametrize("models", [V1, V2, BOTH], ids=["V1", "V2", "both"])
    @pytest.mark.parametrize("late", [0, 1, 2, 3])
    async def test_in_part_is_handled_once(self, reader: Reader, models: Models, late: int) -> None:
        ada = uuid4()
        events = [*in_both_versions(ada, 1), *in_both_versions(ada, 3), *in_both_versions(ada, 5)]
        missing = events.pop(late)

        await reader.take(models, *events)
        await reader.take(models, missing)

        handled = {(sequence + 1) // 2 for sequence in await reader.handled()}
        assert len(await reader.handled()) == 3
        assert handled == {1, 2, 3}
        assert await reader.parked() == []
        assert await reader.kept() == [None]

    async def test_after_the_reader_was_moved_is_not_handled_again(self, reader: Reader) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)

        await reader.take(V1, first, *in_both_versions(ada, 3))
        await reader.take(V2, second)

        assert await reader.handled() == [1, 3]
        assert await reader.parked() == []
        assert await reader.kept() == [None]

    async def test_one_version_before_and_one_after_the_move_is_not_handled_again(
        self, reader: Reader
    ) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)

        await reader.take(V1, *in_both_versions(ada, 3))
        await reader.take(V1, first)
        assert await reader.kept() == [[1]]
        await reader.take(V2, second)

        assert await reader.handled() == [3, 1]
        assert await reader.parked() == []
        assert await reader.kept() == [None]

    async def test_whose_later_version_was_passed_over_before_the_move_is_parked(
        self, reader: Reader
    ) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)

        await reader.take(V1, second)
        await reader.take(V2, first)

        assert await reader.handled() == []
        assert await reader.parked() == [(1, "version-missed")]


class TestAReaderThatStartsNow:
    async def test_between_two_versions_of_a_fact_leaves_it_to_the_past(
        self, reader: Reader
    ) -> None:
        ada = uuid4()
        versions = {1: 7, 2: 8, 3: 9}

        await reader.take(
            V1,
            signed_up(ada, 8, model=UserSignedUpV2, versions=versions),
            starts=Start.NOW,
        )
        await reader.take(
            V1,
            signed_up(ada, 9, model=UserSignedUpV3, versions=versions),
            *in_both_versions(ada, 10),
            starts=Start.NOW,
        )

        assert await reader.handled() == [10]
        assert await reader.parked() == []
        assert await reader.kept() == [None]
