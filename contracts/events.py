"""What every integration event has in common, whichever service publishes it."""

from functools import lru_cache
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

# CloudEvents allows no control characters in its strings, and PostgreSQL keeps no NUL:
# text that holds one would be refused by a consumer long after it was published.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Text = Annotated[str, Field(min_length=1, max_length=255, pattern=PRINTABLE)]
ShortText = Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]

URN = "urn:kafka-native-onboarding"

# Types come in from outside too, so not all of them are kept.
_MOST_TYPES: Final = 1_024


class IntegrationEvent(BaseModel):
    """One public fact. A reader ignores fields that it does not know.

    A field is never removed, retyped or made required in the same version: that is the
    next ``…V2``, published beside this one. Strings and lists are bounded.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    event_type: ClassVar[str]

    @classmethod
    def schema_urn(cls) -> str:
        """The value of ``dataschema`` for this event, and the ``$id`` of its JSON Schema."""
        return f"{URN}:schema:{cls.event_type}"


@lru_cache(_MOST_TYPES)
def family_of(event_type: str) -> str:
    """An event type without its version: what all its versions have in common."""
    return event_type.rpartition(".v")[0]


@lru_cache(_MOST_TYPES)
def version_of(event_type: str) -> int:
    """The number of the version in the type of one of our events."""
    return int(event_type.rpartition(".v")[2])


class EventWithheld(IntegrationEvent):
    """An operator discarded an event before it was published; this one has its sequence.

    A reader counts its sequence and does nothing else. Each service has its own type of it.
    """

    withheld_id: Annotated[UUID, Field(description="The id of the discarded event.")]
    withheld_type: Annotated[Text, Field(description="The type of the discarded event.")]
