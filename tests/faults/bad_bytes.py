"""Records that no producer of ours publishes, each with its expected outcome."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid4

from chassis.correlation import new_id
from contracts.envelope import CONTENT_TYPE
from contracts.example_events import EXAMPLES
from contracts.topics import USERS_USER, Topic

PASSED: Final = "passed over"
HANDLED: Final = "handled"
NOT_UNDERSTOOD: Final = "not-understood"
FORKED: Final = "forked"

NO_EVENT: Final = "no event"
REPEATED: Final = "repeated"

Headers = list[tuple[str, bytes | None]]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record, and its expected outcome.

    :param subscribed: at subscribers of the topic's first type: a reason to park it, or another
        outcome
    :param audited: audit's verdict, ``NO_EVENT``, or ``REPEATED``
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    subscribed: str
    audited: str


def event(topic: Topic, subject: UUID, sequence: int = 1) -> Json:
    """Return the attributes of an event of the topic's first type."""
    attributes: Json = json.loads(EXAMPLES[topic.events[0].event_type].payload)
    attributes |= {
        "id": str(new_id()),
        "subject": str(subject),
        "sequence": f"{sequence:010d}",
    }
    if topic is USERS_USER:
        attributes["data"] = {"user_id": str(subject), "username": "mallory"}
    return attributes


def headers_of(attributes: Json) -> Headers:
    """Return the headers that belong to an event."""
    headers = {"content-type": CONTENT_TYPE} | {
        name: str(attributes[name]) for name in ("type", "id", "subject", "sequence")
    }
    return [(name, value.encode()) for name, value in headers.items()]


def record(
    attributes: Json,
    *,
    subscribed: str = NOT_UNDERSTOOD,
    audited: str = NO_EVENT,
    headers: Headers | None = None,
) -> BadRecord:
    """Return the record of an event, with its own headers if no others are given."""
    return BadRecord(
        str(attributes["subject"]).encode(),
        json.dumps(attributes).encode(),
        headers_of(attributes) if headers is None else headers,
        subscribed,
        audited,
    )


def _not_events(topic: Topic) -> list[BadRecord]:
    def raw(key: bytes | None, value: bytes | None, headers: Headers) -> BadRecord:
        return BadRecord(key, value, headers, NOT_UNDERSTOOD, NO_EVENT)

    headers = headers_of(event(topic, uuid4()))
    return [
        raw(b"k", b"not json", []),
        raw(b"k", b"", []),
        raw(b"k", b"null", []),
        raw(b"k", b"[]", []),
        raw(b"k", b'{"hello": "world"}', []),
        raw(b"k", b'{"username": "mallory"}', [("ce_type", b"x"), ("ce_id", b"1")]),
        raw(b"k", b"\xff" * 1_000_000, [("content-type", b"\xff")]),
        raw(b"k", b"[" * 100_000, []),
        raw(b"k", None, []),  # a tombstone
        raw(b"k", None, headers),  # headers only
        raw(None, b"{}", []),
        raw(b"\x00\xff" * 500, b"{}", [("", None), ("type", None), ("type", b"\x00")]),
    ]


def _broken(topic: Topic) -> list[BadRecord]:
    """Events with one wrong attribute, each with its own subject."""
    good: Callable[[], Json] = lambda: event(topic, uuid4())  # noqa: E731
    wrong_data: Json = {"user_id": 5, "task_id": [], "account_id": {}, "username": None}
    wrong: list[Json] = [
        good() | {"specversion": "0.3"},
        good() | {"id": "1"},
        good() | {"id": str(uuid4())},
        good() | {"sequence": 1},
        good() | {"sequence": "1"},
        good() | {"sequence": "0000000000"},
        good() | {"time": 0},
        good() | {"correlationid": "x" * 900_000},
        good() | {"source": "\x00"},
        good() | {"data": None},
        good() | dict.fromkeys(("type", "time", "source", "data")),
    ]
    return [
        *(record(each, headers=[]) for each in wrong),
        *(record(each) for each in wrong if each["type"] and len(str(each["sequence"])) == 10),
        # The headers of one event on another.
        record(good(), headers=headers_of(good())),
        # Audit keeps every valid envelope and does not check its data.
        record(good() | {"data": wrong_data}, audited="next"),
        record(good() | {"data": {}}, audited="next"),
        record(good() | {"data": event(topic, uuid4())["data"] | {"username": "x" * 900_000}},
               audited="next"),
        record(good() | {"data": event(topic, uuid4())["data"] | {"username": "\x00"}},
               audited="next"),
    ]  # fmt: skip


def _unknown(topic: Topic) -> list[BadRecord]:
    known = topic.events[0].event_type
    family = known.rpartition(".v")[0]
    return [
        record(event(topic, uuid4()) | {"type": type_}, subscribed=becomes, audited="next")
        for type_, becomes in (
            (f"{family}.v2", PASSED),
            (f"{family}.v999999999999", PASSED),
            (f"{family}-twice.v1", PASSED),
            ("another.thing-happened.v1", PASSED),
            ("x", PASSED),
        )
    ]


def _out_of_order(topic: Topic) -> list[BadRecord]:
    other = {"type": "another.thing-happened.v1"}
    twice = record(event(topic, uuid4()), subscribed=HANDLED, audited="next")
    late, jumping, forked = uuid4(), uuid4(), uuid4()
    return [
        twice,
        replace(twice, subscribed=PASSED, audited=REPEATED),
        # The second before the first.
        record(event(topic, late, 2) | other, subscribed=PASSED, audited="after-gap"),
        record(event(topic, late, 1), subscribed=HANDLED, audited="late"),
        # From the first to the fifth, and to the last number that there is.
        record(event(topic, jumping, 1), subscribed=HANDLED, audited="next"),
        record(event(topic, jumping, 5) | other, subscribed=PASSED, audited="after-gap"),
        record(
            event(topic, jumping, 9_999_999_999) | other, subscribed=PASSED, audited="after-gap"
        ),
        # One number, two events.
        record(event(topic, forked, 1), subscribed=HANDLED, audited="next"),
        record(event(topic, forked, 1), subscribed=FORKED, audited="forked"),
        # A later event waits behind the parked one, but not if no subscriber wants its type.
        record(event(topic, forked, 2) | other, subscribed=PASSED, audited="next"),
        # Without a key it may be in any partition, but it is a valid event.
        replace(record(event(topic, uuid4()), subscribed=HANDLED, audited="next"), key=None),
    ]


def bad_records(topic: Topic) -> Sequence[BadRecord]:
    """Return one of each kind, in the order in which they are to be published."""
    return [*_not_events(topic), *_broken(topic), *_unknown(topic), *_out_of_order(topic)]
