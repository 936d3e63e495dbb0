import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from joserfc import jwt
from joserfc.jwk import KeySet

from chassis.correlation import new_id
from chassis.testing import Clock
from chassis.web.auth import SIGNING_ALGORITHM, Principal, TokenVerifier
from chassis.web.problems import TemporarilyUnavailable
from users_service.adapters.access_tokens import SignedAccessTokens
from users_service.adapters.signing_keys import SigningKeys, add_key
from users_service.domain.user import Role

from .people import NOW

AHEAD = timedelta(seconds=120)


def kid_at(moment: datetime) -> UUID:
    """The id of a key made at that time."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (new_id().int & ((1 << 80) - 1)))


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def keys(directory: Path, clock: Clock) -> SigningKeys:
    return SigningKeys(directory, published_ahead=AHEAD, now=clock)


async def published(keys: SigningKeys) -> Sequence[str]:
    return [key["kid"] for key in (await keys.published())["keys"]]


class TestAddKey:
    def test_only_the_owner_can_read_it(self, directory: Path) -> None:
        kid = new_id()

        add_key(directory, kid)

        assert [file.name for file in directory.iterdir()] == [f"{kid}.json"]
        assert (directory / f"{kid}.json").stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o700


class TestSigningKeys:
    async def test_without_a_key_signing_fails_and_the_reason_is_reported(
        self, keys: SigningKeys
    ) -> None:
        assert await published(keys) == []
        assert keys.trouble() == "no signing key; rotate-keys makes one"
        with pytest.raises(TemporarilyUnavailable):
            keys.signing()

    async def test_the_first_key_signs_at_once_and_needs_no_restart(
        self, directory: Path, keys: SigningKeys
    ) -> None:
        assert keys.trouble() is not None
        first = kid_at(NOW)

        add_key(directory, first)

        assert keys.signing().kid == str(first)
        assert keys.trouble() is None

    async def test_only_the_public_half_is_published(
        self, directory: Path, keys: SigningKeys
    ) -> None:
        add_key(directory, kid_at(NOW))

        (key,) = (await keys.published())["keys"]

        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}

    async def test_a_newer_key_is_published_before_it_signs(
        self, directory: Path, keys: SigningKeys, clock: Clock
    ) -> None:
        old, new = kid_at(NOW - timedelta(days=1)), kid_at(NOW)
        add_key(directory, old)
        assert keys.signing().kid == str(old)

        add_key(directory, new)

        assert await published(keys) == [str(old), str(new)]
        clock.advance(timedelta(seconds=119))
        assert keys.signing().kid == str(old)
        clock.advance(timedelta(seconds=1))
        assert keys.signing().kid == str(new)
        assert await published(keys) == [str(old), str(new)]

    async def test_a_removed_key_is_not_published(self, directory: Path, keys: SigningKeys) -> None:
        old, new = kid_at(NOW - timedelta(days=2)), kid_at(NOW - timedelta(days=1))
        add_key(directory, old)
        add_key(directory, new)
        assert len(await published(keys)) == 2

        (directory / f"{old}.json").unlink()

        assert await published(keys) == [str(new)]

    async def test_what_changes_of_them_is_in_the_security_log(
        self, directory: Path, keys: SigningKeys
    ) -> None:
        old, new = kid_at(NOW - timedelta(hours=2)), kid_at(NOW - timedelta(hours=1))
        with structlog.testing.capture_logs() as lines:
            add_key(directory, old)
            await published(keys)
            add_key(directory, new)
            await published(keys)
            (directory / f"{old}.json").unlink()
            await published(keys)

        assert [(line["event"], line["added"], line["removed"]) for line in lines] == [
            ("signing-keys-changed", [str(old)], []),
            ("signing-keys-changed", [str(new)], []),
            ("signing-keys-changed", [], [str(old)]),
        ]

    async def test_a_key_that_others_can_read_is_not_used(
        self, directory: Path, keys: SigningKeys
    ) -> None:
        kid = kid_at(NOW)
        add_key(directory, kid)
        file = directory / f"{kid}.json"
        file.chmod(0o640)
        with structlog.testing.capture_logs() as lines:
            assert keys.trouble() is not None
            assert keys.trouble() is not None
        assert [line["event"] for line in lines] == ["signing key not usable"]

        file.chmod(0o600)

        assert keys.trouble() is None

    @pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"kty": "OKP"}'])
    async def test_an_invalid_file_affects_no_other_key_and_is_not_logged(
        self, directory: Path, keys: SigningKeys, text: str
    ) -> None:
        good = kid_at(NOW)
        add_key(directory, good)
        assert keys.signing().kid == str(good)
        bad = directory / f"{kid_at(NOW - timedelta(hours=1))}.json"
        bad.touch(mode=0o600)
        bad.write_text(text)

        with structlog.testing.capture_logs() as lines:
            assert keys.signing().kid == str(good)

        assert [set(line) for line in lines] == [{"event", "log_level", "file", "error"}]

    async def test_a_public_key_or_a_wrong_file_name_is_not_used(
        self, directory: Path, keys: SigningKeys
    ) -> None:
        kid = kid_at(NOW)
        add_key(directory, kid)
        private = json.loads((directory / f"{kid}.json").read_text())
        (directory / f"{kid}.json").rename(directory / f"{kid_at(NOW)}.json")
        public = directory / f"{kid}.json"
        public.touch(mode=0o600)
        public.write_text(json.dumps({name: private[name] for name in private if name != "d"}))

        assert keys.trouble() is not None


class TestSignedAccessTokens:
    async def test_anyone_with_the_published_keys_can_verify_them(
        self, directory: Path, keys: SigningKeys, clock: Clock
    ) -> None:
        add_key(directory, kid_at(NOW))
        tokens = SignedAccessTokens(
            keys, issuer="users", audience="onboarding", lifetime=timedelta(minutes=15)
        )
        verifier = TokenVerifier(
            keys.published,
            issuer="users",
            audience="onboarding",
            lifetime=timedelta(minutes=15),
            now=clock,
        )
        user_id = new_id()

        issued = tokens.issue(user_id, frozenset({Role.OPERATOR}), NOW)
        await verifier._refresh()
        principal = await verifier.verify(issued.text)

        assert principal == Principal(user_id, frozenset({"operator"}))
        assert issued.lifetime == timedelta(minutes=15)

    async def test_a_token_stays_valid_after_its_key_is_rotated(
        self, directory: Path, keys: SigningKeys, clock: Clock
    ) -> None:
        add_key(directory, kid_at(NOW))
        tokens = SignedAccessTokens(
            keys, issuer="users", audience="onboarding", lifetime=timedelta(minutes=15)
        )
        before = tokens.issue(new_id(), frozenset(), NOW)
        add_key(directory, kid_at(NOW + timedelta(seconds=1)))
        clock.advance(timedelta(minutes=5))
        after = tokens.issue(new_id(), frozenset(), clock())

        key_set = KeySet.import_key_set({"keys": (await keys.published())["keys"]})
        kids = [
            jwt.decode(each.text, key_set, algorithms=[SIGNING_ALGORITHM]).header["kid"]
            for each in (before, after)
        ]

        assert kids == await published(keys)
