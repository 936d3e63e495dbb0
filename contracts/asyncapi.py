"""The catalogue as one AsyncAPI 3.0 document, self-contained."""

import json
from inspect import getdoc

from pydantic.json_schema import models_json_schema

from contracts import __version__
from contracts.envelope import (
    CLIENT_CORRELATION_ID,
    CONTENT_TYPE,
    EncodedEvent,
    Envelope,
)
from contracts.events import URN, IntegrationEvent
from contracts.example_events import EXAMPLES
from contracts.json_schemas import Json, WithoutFieldTitles
from contracts.topics import EVENTS, TOPICS, Topic

_BINDING_VERSION = "0.5.0"


def asyncapi_document() -> Json:
    """Every topic with its settings, and every message with its schema and an example."""
    return {
        "asyncapi": "3.0.0",
        "id": URN,
        "info": {
            "title": "Integration events",
            "version": __version__,
            "description": "CloudEvents 1.0 in structured JSON mode, one topic per aggregate type.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": _servers(),
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {f"publish.{topic.name}": _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {name: _message(event) for name, event in EVENTS.items()},
            "schemas": _schemas(),
            "securitySchemes": {
                "login": {
                    "type": "scramSha512",
                    "description": "May read its topics and its own consumer groups, no more.",
                }
            },
        },
    }


def _servers() -> Json:
    return {
        "production": {
            "host": "{brokers}",
            "protocol": "kafka-secure",
            "description": "Ask us for the addresses and a login; README.md lists its rights.",
            "variables": {"brokers": {"description": "host:port of brokers, comma separated"}},
            "security": [{"$ref": "#/components/securitySchemes/login"}],
        },
        "local": {
            "host": "127.0.0.1:9092",
            "protocol": "kafka",
            "description": "The whole system on your own machine: make up. Without a login.",
        },
    }


def _channel(topic: Topic) -> Json:
    return {
        "address": topic.name,
        "messages": {
            event.event_type: {"$ref": f"#/components/messages/{event.event_type}"}
            for event in topic.events
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication_factor,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": -1 if topic.retention_ms is None else topic.retention_ms,
                    "max.message.bytes": topic.max_message_bytes,
                    "min.insync.replicas": topic.min_insync_replicas,
                },
                "bindingVersion": _BINDING_VERSION,
            }
        },
        "x-key": topic.key,
        "x-owner": topic.owner,
        "x-consumers": list(topic.consumers),
    }


def _operation(topic: Topic) -> Json:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"Only the {topic.owner} service publishes here.",
    }


def _message(event: type[IntegrationEvent]) -> Json:
    return {
        "name": event.event_type,
        "title": event.__name__,
        "description": getdoc(event),
        "contentType": CONTENT_TYPE,
        "correlationId": {"location": "$message.payload#/correlationid"},
        "headers": {
            "type": "object",
            "required": ["content-type", "type", "id", "subject", "sequence"],
            "properties": {
                "content-type": {"const": CONTENT_TYPE},
                "type": {"const": event.event_type},
                **{
                    name: {"type": "string"}
                    for name in ("id", "subject", "sequence", "traceparent")
                },
                CLIENT_CORRELATION_ID: {
                    "type": "string",
                    "description": "What a client calls its request. Nobody has verified it.",
                },
            },
        },
        "payload": {
            "allOf": [
                {"$ref": "#/components/schemas/Envelope"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": event.event_type},
                        "dataschema": {"const": event.schema_urn()},
                        "data": {"$ref": f"#/components/schemas/{event.__name__}"},
                    },
                },
            ]
        },
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": _BINDING_VERSION}},
        "examples": [_example(EXAMPLES[event.event_type])],
    }


def _example(record: EncodedEvent) -> Json:
    return {
        "headers": {name: value.decode() for name, value in record.headers},
        "payload": json.loads(record.payload),
    }


def _schemas() -> Json:
    _, schemas = models_json_schema(
        [(Envelope, "validation"), *((event, "validation") for event in EVENTS.values())],
        ref_template="#/components/schemas/{model}",
        schema_generator=WithoutFieldTitles,
    )
    definitions: Json = schemas["$defs"]
    return definitions
