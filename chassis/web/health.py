"""Whether a process can do its work now: its checks, and why any of them fails."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Check = Callable[[], Awaitable[str | None]] | Callable[[], str | None]

_CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class _RegisteredCheck:
    check: Check
    gates: bool


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process is ready.

    :ivar reasons: why each failing check fails, by its name
    """

    ready: bool
    reasons: dict[str, str] = field(default_factory=dict)


class Health:
    """The checks of one process. A check returns why it fails, or None when it passes.

    A failing check that gates makes the process not ready. Another one is only reported.

    :ivar stopping: set when the process begins to stop; answers that last end then
    """

    def __init__(self) -> None:
        self._checks: dict[str, _RegisteredCheck] = {}
        self.stopping = asyncio.Event()

    def add(self, name: str, check: Check, *, gates: bool = True) -> None:
        self._checks[name] = _RegisteredCheck(check, gates)

    def set_stopping(self) -> None:
        """Make the process not ready, for it stops."""
        self.stopping.set()

    async def readiness(self) -> Readiness:
        """Run all checks at once, each for 2 s at most."""
        names = list(self._checks)
        results = await asyncio.gather(*(_run(self._checks[name].check) for name in names))
        reasons = {name: reason for name, reason in zip(names, results, strict=True) if reason}
        gated = any(self._checks[name].gates for name in reasons)
        if self.stopping.is_set():
            reasons["process"] = "stopping"
        return Readiness(not gated and not self.stopping.is_set(), reasons)


async def _run(check: Check) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            reason = check()
            return await reason if inspect.isawaitable(reason) else reason
    except TimeoutError:
        return f"no answer within {_CHECK_TIMEOUT_S:g} s"
    except Exception as error:  # noqa: BLE001 - a check that fails is a reason, not a crash
        return type(error).__name__
