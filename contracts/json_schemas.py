"""JSON Schemas (draft 2020-12) of what a reader accepts, made from the models."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from contracts.envelope import Envelope
from contracts.events import URN
from contracts.topics import EVENTS

Json = dict[str, Any]


class WithoutFieldTitles(GenerateJsonSchema):
    """Leaves out the titles of fields: they only repeat the fields' names."""

    def field_title_should_be_set(self, _schema: object) -> bool:
        return False


def json_schemas() -> dict[str, Json]:
    """The envelope's schema, and that of the data of each event type, by name."""
    schemas = {"envelope": _schema(f"{URN}:schema:envelope", Envelope)}
    for event_type, event in EVENTS.items():
        schemas[event_type] = _schema(event.schema_urn(), event)
    return schemas


def _schema(identity: str, model: type[BaseModel]) -> Json:
    body = model.model_json_schema(schema_generator=WithoutFieldTitles)
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": identity, **body}
