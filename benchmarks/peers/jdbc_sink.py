"""Debezium's JDBC sink: a topic into a table, one row upserted a record."""

from typing import Final

from benchmarks.bench import Bench
from benchmarks.figure import Unavailable, Values

NAME: Final = "Debezium JDBC sink 3.3.1"
DOES_LESS: Final = (
    "upserts rows only: no hash, no dedupe by inbox, no gap check; its records carry a schema"
)
RECORDS: Final = 100_000


async def jdbc_sink(_bench: Bench) -> Values:
    """Load a topic of its own with ``RECORDS`` records of 500 bytes and have them in a table.

    A side as it is: ``Side(NAME, Kind.PEER, jdbc_sink, DOES_LESS)``.

    :returns: ``{"records_per_s": …}``, by the number of rows, from the first sight of any
    :raises Unavailable: it can't be fetched here
    """
    raise Unavailable("not there yet")
