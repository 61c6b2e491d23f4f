"""What the work in a process may use: time and memory, until somebody cancels it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, TypeVar

from services.runner.domain import FailureKind, bytes_as_said
from services.runner.frames import Interrupt
from services.runner.pool import Process, ProcessLost
from shared.background import end, happens

T = TypeVar("T")

_WATCH_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 0.5
"""How long a process may take to stop by itself before it is killed."""
_INTERRUPT_SECONDS: Final = 0.1
_HEADROOM_BYTES: Final = 1_000_000_000
"""What a process may have beyond the memory of DuckDB: Python, PyIceberg, buffers of Parquet and Arrow."""


class Broken(Exception):
    """The work cannot go on, and its kind of failure decides what is next."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass
class Allowance:
    """What the work may use, and what it is at."""

    memory_limit_bytes: int
    timeout_seconds: float = 3600
    timeout_name: str = "timeout_seconds"
    """Who wants more time has to raise this."""
    phase: str = "compile"
    """What it does now."""

    def timed_out(self) -> Broken:
        """What becomes of work that takes too long."""
        return Broken(
            FailureKind.TIMEOUT,
            f"took longer than {self.timeout_seconds:g} s ({self.timeout_name}) in phase {self.phase}",
        )

    def used_up(self, why: str) -> Broken:
        """What becomes of work that needs too much memory, and what needed it."""
        return Broken(
            FailureKind.MEMORY,
            f"memory_limit of {bytes_as_said(self.memory_limit_bytes)} was used up in phase {self.phase}: {why}",
        )

    def exceeded_by(self, resident: int) -> Broken | None:
        """What becomes of work whose process has so many bytes in memory; None if it may have them."""
        if resident <= self.memory_limit_bytes + _HEADROOM_BYTES:
            return None
        return self.used_up(
            f"the process had {bytes_as_said(resident)},"
            f" and may have {bytes_as_said(_HEADROOM_BYTES)} beyond what DuckDB may hold"
        )


async def watched(
    process: Process,
    conversing: Coroutine[Any, Any, T],
    allowance: Allowance,
    cancelled: asyncio.Event,
    tell: Callable[[str], object],
) -> T | Broken:
    """What a conversation with a process comes to, or why it was broken off: cancelled, too long, too much memory.

    One that does not heed an interrupt is raised as `Broken`, and its process is to be killed; so is one that fills
    the memory, which is not asked first. `tell` is told how the work was stopped.
    """
    conversation = asyncio.create_task(conversing)
    watching = asyncio.create_task(_reason_to_stop(process, allowance, cancelled))
    try:
        await asyncio.wait({conversation, watching}, return_when=asyncio.FIRST_COMPLETED)
        if conversation.done():
            return conversation.result()
        broken = watching.result()
        if broken.kind is FailureKind.MEMORY:
            raise broken
        began = perf_counter()
        has_stopped = await _stop(process, conversation)
        how = "interrupted" if has_stopped else "killed, as it did not heed an interrupt"
        tell(f"the work was {how} after {(perf_counter() - began) * 1000:.0f} ms")
        if not has_stopped:
            raise broken
        return broken
    finally:
        await end_all(conversation, watching)


async def end_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel what is still going on, and wait until it is over."""
    all_of_them = {task for task in tasks if task is not None}
    await end(all_of_them)
    for task in all_of_them:
        if not task.cancelled():
            # What it raised was dealt with where it was waited for; looking at it keeps asyncio from complaining.
            task.exception()


async def _reason_to_stop(process: Process, allowance: Allowance, cancelled: asyncio.Event) -> Broken:
    began = perf_counter()
    while True:
        remaining = began + allowance.timeout_seconds - perf_counter()
        if remaining <= 0:
            return allowance.timed_out()
        if await happens(cancelled, within_seconds=min(_WATCH_SECONDS, remaining)):
            return Broken(FailureKind.CANCELLED, "cancelled on request")
        if (exceeded := allowance.exceeded_by(process.resident_bytes())) is not None:
            return exceeded


async def _stop(process: Process, conversation: asyncio.Task[Any]) -> bool:
    """Interrupt what a process does, and say whether it stopped by that.

    An interrupt between two statements is of no consequence: it is repeated. A process that reads nothing is not waited
    for any longer.
    """
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            while not conversation.done():
                await process.send(Interrupt())
                await asyncio.wait({conversation}, timeout=_INTERRUPT_SECONDS)
    except (ProcessLost, TimeoutError):
        return False
    return conversation.done() and not conversation.cancelled() and conversation.exception() is None
