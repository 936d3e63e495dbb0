"""Locks the aggregates of many events before the first is handled, in one order.

Two chunks that change the same aggregates would else lock them in the order of their events, and
end in a deadlock (``docs/decisions/0014``).
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from chassis.consuming.records import Record

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)

Find = Callable[[Iterable[Any]], Awaitable[object]]
"""A repository's method that loads and locks aggregates by their keys."""


@dataclass(frozen=True, slots=True)
class Aggregates(Generic[W_contra]):
    """Which existing aggregates the handler of an event loads.

    :param find: returns the repository's method, such as ``work.accounts.load``
    :param keys: returns the keys that the method finds an event's aggregates by, such as their ids
    """

    find: Callable[[W_contra], Find]
    keys: Callable[[Any], Iterable[Any]]


class NamesAggregates(Protocol[W_contra]):
    """A subscriber, as far as it names the aggregates of its events."""

    def aggregates_in(
        self, records: Sequence[Record]
    ) -> Iterable[tuple[Aggregates[W_contra], Iterable[Any]]]:
        """Return, for the events in the records, which aggregates are loaded by which keys."""


async def lock_aggregates(
    work: W, records: Iterable[tuple[NamesAggregates[W], Sequence[Record]]]
) -> None:
    """Load all that the subscribers' handlers will load: each repository's by one call.

    The repositories come in the order of their names, and each locks in the order of ids.
    """
    keys: dict[Find, list[Any]] = defaultdict(list)
    for subscriber, its_records in records:
        for aggregates, its_keys in subscriber.aggregates_in(its_records):
            keys[aggregates.find(work)].extend(its_keys)
    for find in sorted(keys, key=_name):
        await find(keys[find])


def _name(find: Find) -> tuple[str, str]:
    return type(getattr(find, "__self__", None)).__qualname__, getattr(find, "__name__", "")
