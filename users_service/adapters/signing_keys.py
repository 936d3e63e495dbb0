"""The keys that sign access tokens: private JWKs in a directory, one file each."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from chassis.telemetry import SECURITY
from chassis.web.auth import SIGNING_ALGORITHM
from chassis.web.problems import TemporarilyUnavailable

_OTHERS: Final = 0o077
_UUID_VERSION: Final = 7
_KEY_FILES: Final = "*.json"

_log = structlog.get_logger(__name__)
_security = structlog.get_logger(SECURITY)


class UnusableKey(ValueError):
    """A file that is no private key in the expected form, or that others may read."""


def add_key(directory: Path, kid: UUID) -> None:
    """Make a key in one file, atomically. The UUIDv7 ``kid`` is its id and its age."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = OKPKey.generate_key(
        "Ed25519", {"kid": str(kid), "use": "sig", "alg": SIGNING_ALGORITHM}, private=True
    )
    # mkstemp makes files that only the owner may read.
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".new-")
    with os.fdopen(descriptor, "w") as file:
        json.dump(key.as_dict(private=True), file)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).rename(directory / f"{kid}.json")


def has_key(directory: Path) -> bool:
    """Return whether a key was made in this directory, usable or not."""
    return any(directory.glob(_KEY_FILES))


class SigningKeys:
    """The keys that are in a directory now; a change of the files needs no restart.

    All are published. The newest key that readers have had time to fetch signs.
    """

    def __init__(
        self, directory: Path, *, published_ahead: timedelta, now: Callable[[], datetime]
    ) -> None:
        self._directory = directory
        self._published_ahead = published_ahead
        self._now = now
        self._seen: frozenset[tuple[str, int]] = frozenset()
        self._keys: Mapping[UUID, OKPKey] = {}

    def signing(self) -> OKPKey:
        """Return the key to sign with.

        :raises TemporarilyUnavailable: there is no key
        """
        keys = self._current()
        if not keys:
            raise TemporarilyUnavailable("there is no key to sign access tokens with yet")
        ripe_at = self._now() - self._published_ahead
        ripe = [kid for kid in keys if _made_at(kid) <= ripe_at]
        return keys[max(ripe) if ripe else min(keys)]

    async def published(self) -> dict[str, Any]:
        """Return the JSON Web Key Set of the public halves."""
        return {"keys": [key.as_dict(private=False) for key in self._current().values()]}

    def trouble(self) -> str | None:
        return None if self._current() else "no signing key; rotate-keys makes one"

    def _current(self) -> Mapping[UUID, OKPKey]:
        # Read on every use. That takes microseconds, since there are few files.
        files = sorted(self._directory.glob(_KEY_FILES))
        seen = frozenset((file.name, file.stat().st_ctime_ns) for file in files)
        if seen != self._seen:
            before, self._keys = self._keys, dict(_usable(files))
            self._seen = seen
            added = sorted(map(str, self._keys.keys() - before.keys()))
            removed = sorted(map(str, before.keys() - self._keys.keys()))
            if added or removed:
                _security.info("signing-keys-changed", added=added, removed=removed)
        return self._keys


def _usable(files: Iterable[Path]) -> Iterator[tuple[UUID, OKPKey]]:
    for file in files:
        try:
            yield _read(file)
        except (OSError, ValueError, JoseError) as error:
            # The other keys still sign. The log has nothing of the file's content.
            _log.error("signing key not usable", file=file.name, error=type(error).__qualname__)


def _read(file: Path) -> tuple[UUID, OKPKey]:
    if file.stat().st_mode & _OTHERS:
        raise UnusableKey("others may read it")
    kid = UUID(file.stem)
    key = OKPKey.import_key(json.loads(file.read_bytes()))
    if kid.version != _UUID_VERSION or key.kid != file.stem:
        raise UnusableKey("its name is not its id, a UUIDv7")
    if not key.is_private or key.curve_name != "Ed25519":
        raise UnusableKey("no private Ed25519 key")
    return kid, key


def _made_at(kid: UUID) -> datetime:
    # A UUIDv7 begins with 48 bits of milliseconds (RFC 9562, 5.7).
    return datetime.fromtimestamp((kid.int >> 80) / 1000, UTC)
