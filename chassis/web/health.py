"""Whether a process can do its work now, check by check, each with its reason."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Check = Callable[[], Awaitable[str | None]] | Callable[[], str | None]

_CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class _Registered:
    check: Check
    gates: bool


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons``: why each failing check fails. Those that gate take readiness away."""

    ready: bool
    reasons: dict[str, str] = field(default_factory=dict)


class Health:
    """The checks of one process. A check says why it fails, or None when all is well.

    Trouble in a check that does not gate is shown, and takes nobody's requests away.
    """

    def __init__(self) -> None:
        self._checks: dict[str, _Registered] = {}
        self._stopping = False

    def add(self, name: str, check: Check, *, gates: bool = True) -> None:
        self._checks[name] = _Registered(check, gates)

    def stopping(self) -> None:
        """Say from now on that the process is going."""
        self._stopping = True

    async def verdict(self) -> Readiness:
        """Run every check, all at once, each for 2 s at most."""
        names = list(self._checks)
        said = await asyncio.gather(*(_ask(self._checks[name].check) for name in names))
        reasons = {name: reason for name, reason in zip(names, said, strict=True) if reason}
        gated = any(self._checks[name].gates for name in reasons)
        if self._stopping:
            reasons["process"] = "stopping"
        return Readiness(not gated and not self._stopping, reasons)


async def _ask(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            said = check()
            return await said if inspect.isawaitable(said) else said
    except TimeoutError:
        return f"no answer within {_CHECK_TIMEOUT_S:g} s"
    except Exception as error:  # noqa: BLE001 - a check that fails is a reason, not a crash
        return type(error).__name__
