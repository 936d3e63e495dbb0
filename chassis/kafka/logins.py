"""Gives logins of Kafka their passwords (SCRAM-SHA-512).

aiokafka has no such request, so it is here, sent through aiokafka's client (KIP-554).
"""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_SCRAM_SHA_512: Final = 2
# Kafka takes 4,096 to 16,384. The passwords are random, so more would protect none.
_ITERATIONS: Final = 8_192
_SALT_BYTES: Final = 16
_TAGS: Final = ("tags", TaggedFields)
_STRING: Final = CompactString("utf-8")


class _Response(Response):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(("user", _STRING), ("error_code", Int16), ("message", _STRING), _TAGS),
        ),
        _TAGS,
    )


class _RequestStruct(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", _STRING), ("mechanism", Int8), _TAGS)),
        (
            "upsertions",
            CompactArray(
                ("name", _STRING),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _Request(Request[_RequestStruct]):  # type: ignore[misc]  # as above
    API_KEY = 51

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = passwords

    def build(self, request_struct_class: type[_RequestStruct]) -> _RequestStruct:
        credentials = [_credential(*each) for each in self._passwords.items()]
        return request_struct_class([], credentials, {})


def _credential(login: str, password: str) -> tuple[Any, ...]:
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return login, _SCRAM_SHA_512, _ITERATIONS, salt, salted, {}


async def set_passwords(client: AIOKafkaAdminClient, passwords: Mapping[str, str]) -> None:
    """Make each login, or give one that exists this password; open connections stay.

    :raises KafkaError: the cluster refuses one
    """
    answer = await client._send_request(_Request(passwords))  # noqa: SLF001 - see above
    for user, code, message, _ in answer.results:
        if code != 0:
            raise for_code(code)(f"{user}: {message}" if message else user)
