"""What is told of a run while it goes on: its log line by line, its phases, and that it is alive."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal
from uuid import UUID

from contracts.messages import Event, utc_now
from contracts.runs import LogLine, LogWritten, Phase, RunProgressed
from shared.background import end
from shared.bus import Bus
from shared.errors import RatError

_PATIENCE_SECONDS: Final = 0.5
_LONGEST_SHOWN: Final = 10_000
"""Characters of a line that are told at once; all of it is in the log in S3."""
_WAITING: Final = 10_000
"""Lines that wait for the bus at the most; what comes then is only in the log in S3."""
_AT_ONCE: Final = 50
"""Events that are told together."""


class Journal:
    """The log and the phases of one attempt, told as they happen; what cannot be told now is not told later.

    `lines` begins with those of the attempts before it that this runner worked on.
    """

    def __init__(self, bus: Bus, run_id: UUID, attempt: int, before: Sequence[LogLine]) -> None:
        self._bus = bus
        self._run_id = run_id
        self._attempt = attempt
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(_WAITING)
        self.lines = [*before]
        self.phases: list[Phase] = []

    def log(self, message: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """Write a line of the runner's own."""
        self.add(LogLine(timestamp=utc_now(), level=level, message=message))

    def add(self, line: LogLine) -> None:
        """Write a line."""
        self.lines.append(line)
        shown = line.model_copy(update={"message": line.message[:_LONGEST_SHOWN]})
        self._tell(LogWritten(run_id=self._run_id, attempt=self._attempt, line=shown))

    def phase(self, phase: Phase) -> None:
        """Note that a phase is done."""
        self.phases.append(phase)
        self._tell(RunProgressed(run_id=self._run_id, attempt=self._attempt, phase=phase))

    def as_json_lines(self) -> bytes:
        """The whole log, as it is kept."""
        return b"".join(line.model_dump_json().encode() + b"\n" for line in self.lines)

    def _tell(self, event: Event) -> None:
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait(event)

    async def told(self) -> None:
        """Wait a moment until what was written is published."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._waiting.join()

    async def publish_for_ever(self) -> None:
        """Publish what is written, in order."""
        while True:
            events = [await self._waiting.get()]
            while not self._waiting.empty() and len(events) < _AT_ONCE:
                events.append(self._waiting.get_nowait())
            with suppress(RatError):
                await self._bus.tell(events)
            for _ in events:
                self._waiting.task_done()


@asynccontextmanager
async def journal(bus: Bus, run_id: UUID, attempt: int, before: Sequence[LogLine]) -> AsyncIterator[Journal]:
    """Tell of an attempt for as long as the block lasts."""
    telling = Journal(bus, run_id, attempt, before)
    task = asyncio.create_task(telling.publish_for_ever())
    try:
        yield telling
        await telling.told()
    finally:
        await end({task})
