import asyncio
import threading
from collections.abc import Iterator

import pytest

from chassis.testing import eventually
from users_service.adapters.argon2_hasher import Argon2Hasher
from users_service.domain.errors import TooManyHashes
from users_service.domain.values import Password, PasswordHash


async def are(condition: object) -> bool:
    return bool(condition)


@pytest.fixture
def hasher() -> Iterator[Argon2Hasher]:
    hasher = Argon2Hasher(memory_kib=64, passes=1, lanes=1, threads=2, waiting=3, wait_s=60)
    yield hasher
    hasher.close()


class TestArgon2Hasher:
    async def test_only_the_right_password_matches(self, hasher: Argon2Hasher) -> None:
        known = await hasher.hash(Password.parse("correct horse"))

        assert await hasher.verify(Password.offered("correct horse"), known)
        assert not await hasher.verify(Password.offered("wrong"), known)

    async def test_the_hash_is_argon2id_with_the_settings_and_a_salt(
        self, hasher: Argon2Hasher
    ) -> None:
        first = await hasher.hash(Password.parse("correct horse"))
        second = await hasher.hash(Password.parse("correct horse"))

        assert first.value.startswith("$argon2id$v=19$m=64,t=1,p=1$")
        assert first != second

    async def test_no_hash_takes_one_verification_and_matches_nothing(
        self, hasher: Argon2Hasher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verified: list[str] = []

        def matches(hashed: str, _password: Password) -> bool:
            verified.append(hashed)
            return True

        monkeypatch.setattr(hasher, "_matches", matches)

        assert not await hasher.verify(Password.offered("correct horse"), None)
        assert [each.split("$")[3] for each in verified] == ["m=64,t=1,p=1"]

    async def test_a_hash_made_with_other_settings_is_outdated(self, hasher: Argon2Hasher) -> None:
        stronger = Argon2Hasher(memory_kib=128, passes=1, lanes=1, threads=1, waiting=3, wait_s=60)
        known = await hasher.hash(Password.parse("correct horse"))

        assert stronger.is_outdated(known)
        assert not hasher.is_outdated(known)
        assert await stronger.verify(Password.offered("correct horse"), known)
        stronger.close()

    async def test_what_would_wait_for_long_is_refused_and_sign_ins_have_places_of_their_own(
        self, hasher: Argon2Hasher
    ) -> None:
        password = Password.parse("correct horse")
        known = await hasher.hash(password)

        new = await asyncio.gather(
            *(hasher.hash(password) for _ in range(5)), return_exceptions=True
        )
        together = await asyncio.gather(
            *(hasher.hash(password) for _ in range(3)), hasher.verify(password, known)
        )

        assert [type(each) for each in new] == [PasswordHash] * 3 + [TooManyHashes] * 2
        assert together[-1] is True

    async def test_one_that_is_cancelled_gives_its_place_back_and_is_not_begun(
        self, hasher: Argon2Hasher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go_on = [], threading.Event()

        def matches(_hashed: str, password: Password) -> bool:
            begun.append(password.value)
            return go_on.wait(10)

        monkeypatch.setattr(hasher, "_matches", matches)
        verifying = [
            asyncio.create_task(hasher.verify(Password.offered(name), None)) for name in "abc"
        ]
        await eventually(lambda: are(len(begun) == 2))
        verifying[2].cancel()
        await asyncio.wait([verifying[2]])
        another = asyncio.create_task(hasher.verify(Password.offered("d"), None))
        await asyncio.sleep(0)

        go_on.set()
        await asyncio.gather(*verifying[:2], another)

        assert begun == ["a", "b", "d"]

    async def test_what_has_waited_for_too_long_is_not_begun(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        began, go_on, seconds = threading.Event(), threading.Event(), [0.0]
        hasher = Argon2Hasher(
            memory_kib=64,
            passes=1,
            lanes=1,
            threads=1,
            waiting=3,
            wait_s=2,
            monotonic=lambda: seconds[0],
        )
        verified = []

        def matches(_hashed: str, password: Password) -> bool:
            verified.append(password.value)
            began.set()
            return go_on.wait(10)

        monkeypatch.setattr(hasher, "_matches", matches)
        verifying = [
            asyncio.create_task(hasher.verify(Password.offered(name), None)) for name in "ab"
        ]
        await asyncio.to_thread(began.wait, 10)

        seconds[0] = 2.1
        go_on.set()
        outcomes = await asyncio.gather(*verifying, return_exceptions=True)
        hasher.close()

        assert [type(each) for each in outcomes] == [bool, TooManyHashes]
        assert verified == ["a"]

    async def test_half_a_surrogate_pair_is_accepted(self, hasher: Argon2Hasher) -> None:
        odd = Password.parse("\ud800" * 8)

        assert await hasher.verify(odd, await hasher.hash(odd))

    async def test_at_most_one_hash_per_thread_is_made_at_once(self, hasher: Argon2Hasher) -> None:
        began: list[int] = []
        two_began, finish = threading.Event(), threading.Event()

        def occupy() -> None:
            began.append(1)
            if len(began) == 2:
                two_began.set()
            finish.wait(10)

        busy = [asyncio.ensure_future(hasher._on_thread(occupy)) for _ in range(5)]
        await asyncio.to_thread(two_began.wait, 10)

        assert len(began) == 2
        finish.set()
        await asyncio.gather(*busy)
        assert len(began) == 5
