"""Waits until a broker shows what it was told to create.

The controller answers when the change is in its log. The broker that is asked next may not have
read it from there yet (KIP-500: each broker follows the metadata log by itself).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiokafka.errors import KafkaError

_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.05


class NotShown(KafkaError):  # type: ignore[misc]  # aiokafka has no annotations
    """The broker does not show what the controller has taken; the message names it."""


async def until_shown(
    missing: Callable[[], Awaitable[Sequence[str]]], *, within_s: float = _WITHIN_S
) -> None:
    """Wait until nothing is missing.

    :param missing: asks the broker, and returns what it does not show yet
    :raises NotShown: something still is, after so long
    """
    ends_s = asyncio.get_running_loop().time() + within_s
    while absent := await missing():
        if asyncio.get_running_loop().time() > ends_s:
            raise NotShown(", ".join(absent))
        await asyncio.sleep(_LOOK_EVERY_S)
