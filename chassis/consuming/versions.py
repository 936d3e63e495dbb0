"""A fact that is published in several versions: a subscriber handles one of them, once.

Each version is an event with a sequence of its own, and the envelope's ``versions`` names them all.
A subscriber takes the newest version that it has a handler for. After it was changed to take
another one, its inbox shows which facts it has handled already.
"""

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Final

from chassis.consuming.inbox import Seen
from contracts.envelope import Envelope

_NONE: Final[Mapping[int, int]] = {}


class Choice(Enum):
    """What a subscriber does with one version of a fact."""

    HANDLE = auto()
    HANDLED = auto()  # the fact was handled in another version
    LATER = auto()  # the version to take is still to come
    MISSED = auto()  # the version to take was passed over, before the subscriber was changed
    NO_VERSION = auto()  # the subscriber takes none of the versions


def choose(envelope: Envelope, version: int | None, taken: Collection[int], seen: Seen) -> Choice:
    """Return what to do with an event.

    :param version: the event's; None: the subscriber has no handler for it
    :param taken: the versions of this fact that the subscriber has handlers for
    :param seen: what it has seen of the event's subject
    """
    others = others_of(envelope)
    if not seen.handled.isdisjoint(others.values()):
        return Choice.HANDLED
    preferred = [
        sequence
        for other, sequence in others.items()
        if other in taken and (version is None or other > version)
    ]
    if any(seen.is_to_come(sequence) for sequence in preferred):
        return Choice.LATER
    if version is not None:
        return Choice.HANDLE
    if not preferred:
        return Choice.NO_VERSION
    if all(sequence < seen.started_at for sequence in preferred):
        return Choice.HANDLED  # as much as anything else before the subscriber's start
    return Choice.MISSED


def others_of(envelope: Envelope) -> Mapping[int, int]:
    """Return the other versions of an event's fact, with their sequences."""
    if envelope.versions is None:
        return _NONE
    return {
        version: sequence
        for version, sequence in envelope.versions.items()
        if sequence != envelope.sequence
    }
