"""Passwords as Argon2id hashes, made on a few threads beside the event loop."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from users_service.domain.values import Password, PasswordHash

T = TypeVar("T")


class Argon2Hasher:
    """Uses at most ``memory_kib`` on each of ``threads`` threads at a time."""

    def __init__(self, *, memory_kib: int, passes: int, lanes: int, threads: int) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=passes, memory_cost=memory_kib, parallelism=lanes
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._unknown = self._argon2.hash(secrets.token_bytes(16))

    async def hash(self, password: Password, /) -> PasswordHash:
        return PasswordHash(await self._on_thread(lambda: self._argon2.hash(_bytes_of(password))))

    async def verify(self, password: Password, known: PasswordHash | None, /) -> bool:
        hashed = self._unknown if known is None else known.value
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
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _bytes_of(password: Password) -> bytes:
    # JSON can hold half a surrogate pair, which strict UTF-8 cannot.
    return password.value.encode(errors="surrogatepass")
