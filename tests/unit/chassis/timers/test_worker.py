"""The timer worker, as far as it needs no database."""

from typing import ClassVar

import pytest
from pydantic import SecretStr

from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from chassis.timers.timer import Timer
from chassis.timers.worker import TimerWorker
from tests.unit.chassis.timers.test_in_memory import InMemoryWork
from tests.unit.chassis.timers.timers_suite import Note, Notes

URL = "postgresql://nobody@127.0.0.1:1/none"


class OtherNote(Timer):
    kind: ClassVar[str] = Note.kind


async def test_two_timers_of_one_kind_are_refused() -> None:
    settings = ServiceSettings(
        http_port=0, database_url=SecretStr(URL), idempotency_secret=SecretStr("x" * 32)
    )
    engine = Database(URL, pool_size=1, application_name="test")
    notes = Notes()

    with pytest.raises(ValueError, match="one kind"):
        TimerWorker(
            settings,
            engine,
            lambda _connection: InMemoryWork({}),
            {Note: notes, OtherNote: notes},
        )
