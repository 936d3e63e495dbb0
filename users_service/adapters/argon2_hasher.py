"""Passwords as Argon2id hashes, made on a few threads beside the event loop."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from users_service.domain.errors import TooManyHashes
from users_service.domain.values import Password, PasswordHash

T = TypeVar("T")


class Argon2Hasher:
    """Uses at most ``memory_kib`` on each of ``threads`` threads at a time.

    Of new hashes and of verifications at most ``waiting`` each are begun or wait, so that many
    sign-ups delay a sign-in only by those. What has waited for ``wait_s`` is not begun: by then
    the client has been answered, or has left.
    """

    def __init__(
        self,
        *,
        memory_kib: int,
        passes: int,
        lanes: int,
        threads: int,
        waiting: int,
        wait_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=passes, memory_cost=memory_kib, parallelism=lanes
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._new = _Share(waiting)
        self._verified = _Share(waiting)
        self._unknown = self._argon2.hash(secrets.token_bytes(16))

    async def hash(self, password: Password, /) -> PasswordHash:
        with self._new.place():
            hashed = await self._on_thread(lambda: self._argon2.hash(_bytes_of(password)))
        return PasswordHash(hashed)

    async def verify(self, password: Password, known: PasswordHash | None, /) -> bool:
        hashed = self._unknown if known is None else known.value
        with self._verified.place():
            matches = await self._on_thread(lambda: self._matches(hashed, password))
        return matches and known is not None

    def is_outdated(self, known: PasswordHash, /) -> bool:
        return self._argon2.check_needs_rehash(known.value)

    def close(self) -> None:
        """Stop the threads; hashes that have not started are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, hashed: str, password: Password) -> bool:
        try:
            return self._argon2.verify(hashed, _bytes_of(password))
        except VerifyMismatchError:
            return False

    async def _on_thread(self, work: Callable[[], T]) -> T:
        asked_at = self._monotonic()

        def begin() -> T:
            if self._monotonic() - asked_at > self._wait_s:
                raise TooManyHashes
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, begin)


class _Share:
    """A bounded number of places, of which none is waited for."""

    def __init__(self, places: int) -> None:
        self._free = places

    @contextmanager
    def place(self) -> Iterator[None]:
        if not self._free:
            raise TooManyHashes
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def _bytes_of(password: Password) -> bytes:
    # JSON can hold half a surrogate pair, which strict UTF-8 cannot.
    return password.value.encode(errors="surrogatepass")
