"""The log of a run: while it goes on, from the bus; when it has ended, from the object store."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from pydantic import ValidationError

from contracts.runs import AddressRunLogs, FindRun, LogLine, LogWritten, Run, RunFinished, RunProgressed, RunStarted
from services.gateway.encoding import json_bytes
from services.gateway.sse import COMMENT, HEARTBEAT_SECONDS, Arrival, arrival, merged, read, sse
from services.gateway.tail import Tail, after, from_start, from_time, tail
from services.gateway.uplink import Uplink
from shared.bus import Bus

_PLACE: Final = re.compile(r"[0-9]{1,18}-[0-9]{1,17}-[0-9]{1,9}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIER: Final = timedelta(seconds=1)
"""Clocks that are read by different processes may disagree by as much."""


@dataclass(frozen=True)
class Place:
    """How far somebody has read, as the id of an event: the last event, and the time of the last line."""

    sequence: int = 0
    micros: int = 0
    same: int = 0
    """How many lines of that very time were read."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The place that an id of ours names; None for any other text."""
        if not _PLACE.fullmatch(text):
            return None
        sequence, micros, same = map(int, text.split("-"))
        return cls(sequence, micros, same)

    def __str__(self) -> str:
        return f"{self.sequence}-{self.micros}-{self.same}"

    def behind(self, line: LogLine) -> Self:
        """The place when this line was read as well."""
        micros = (line.timestamp - _EPOCH) // timedelta(microseconds=1)
        return replace(self, micros=micros, same=self.same + 1 if micros == self.micros else 1)

    @property
    def moment(self) -> datetime:
        """The time of the last line."""
        return _EPOCH + timedelta(microseconds=self.micros)


class Skipping:
    """Passes over the lines that were read already."""

    def __init__(self, place: Place | None) -> None:
        self._moment = place.moment if place else None
        self._left = place.same if place else 0

    def is_new(self, line: LogLine) -> bool:
        """Whether the line lies behind the place."""
        if self._moment is None or line.timestamp > self._moment:
            return True
        if line.timestamp < self._moment or self._left > 0:
            self._left -= line.timestamp == self._moment
            return False
        return True


async def lines(bus: Bus, store: Uplink, run_id: UUID) -> AsyncGenerator[bytes, None]:
    """The log so far as one JSON document."""
    logs = await bus.ask(AddressRunLogs(run_id=run_id))
    yield b'{"logs":['
    comma = b""
    async with aclosing(_written(bus, store, run_id)) as written:
        async for line in written:
            yield comma + json_bytes(line)
            comma = b","
    yield b'],"status":' + json_bytes(logs.status) + b"}"


async def _written(bus: Bus, store: Uplink, run_id: UUID) -> AsyncGenerator[LogLine, None]:
    """What was written until now."""
    logs = await bus.ask(AddressRunLogs(run_id=run_id))
    if logs.url is not None:
        async with aclosing(store.lines(logs.url)) as texts:
            async for text in texts:
                if text:
                    yield LogLine.model_validate_json(text)
        return
    if logs.status.is_terminal:
        for line in logs.last_lines:
            yield line
        return
    async with tail(bus, "LOGS", [_subject(run_id)], from_start()) as reader:
        while reader.behind and (message := await reader.next(HEARTBEAT_SECONDS)):
            if (written := _line(read(message))) is not None:
                yield written


async def follow(bus: Bus, store: Uplink, run: Run, place: Place | None) -> AsyncGenerator[bytes, None]:
    """The log, phases and states of a run as events, from a place on, until it has ended."""
    if not run.status.is_terminal:
        async with aclosing(_live(bus, run, place)) as live:
            async for event in live:
                yield event
        return
    skipping, at = Skipping(place), place or Place()
    async with aclosing(_written(bus, store, run.id)) as written:
        async for line in written:
            if skipping.is_new(line):
                at = at.behind(line)
                yield sse("log", line, str(at))
    for phase in run.phase_profiles if place is None else []:
        yield sse("phase", phase, str(at))
    yield sse("status", _state(run), str(at))


async def _live(bus: Bus, run: Run, place: Place | None) -> AsyncGenerator[bytes, None]:
    subjects = [RunStarted.subject, RunProgressed.subject, RunFinished.subject]
    async with AsyncExitStack() as exits:
        since = from_time(place.moment - _EARLIER) if place and place.micros else from_start()
        logs = await exits.enter_async_context(tail(bus, "LOGS", [_subject(run.id)], since))
        start = after(place.sequence) if place and place.sequence else from_time(run.created_at - _EARLIER)
        events = await exits.enter_async_context(tail(bus, "EVENTS", subjects, start))
        queue = await exits.enter_async_context(merged(logs, events))
        telling = _Telling(run.id, logs, place)
        if place is None:
            yield sse("status", _state(run), str(telling.place))
        while not telling.has_ended:
            arrived = await arrival(queue, HEARTBEAT_SECONDS)
            if arrived is not None:
                yield telling.event(arrived)
                continue
            yield COMMENT
            # Its end may have gone by, if this was away for longer than events are kept.
            found = await bus.ask(FindRun(run_id=run.id))
            if found.status.is_terminal:
                telling.end(found)
        async with aclosing(_rest(queue, logs, telling)) as rest:
            async for event in rest:
                yield event
        yield telling.last()


async def _rest(queue: "asyncio.Queue[Any]", logs: Tail, telling: "_Telling") -> AsyncGenerator[bytes, None]:
    """The lines that were written before the end and come after it."""
    while not queue.empty() or await logs.remaining():
        if (arrived := await arrival(queue, 1)) is not None:
            yield telling.event(arrived)


class _Telling:
    """Tells what arrives of a run, and keeps the place."""

    def __init__(self, run_id: UUID, logs: Tail, place: Place | None) -> None:
        self._run_id = str(run_id)
        self._logs = logs
        self._skipping = Skipping(place)
        self._last: dict[str, Any] = {}
        self.place = place or Place()

    @property
    def has_ended(self) -> bool:
        """Whether the end of the run is known."""
        return bool(self._last)

    def end(self, run: Run) -> None:
        """Take the end from what catalog says."""
        self._last = _state(run)

    def last(self) -> bytes:
        """The terminal state."""
        return sse("status", self._last, str(self.place))

    def event(self, arrived: Arrival) -> bytes:
        """What has arrived, as it is told; nothing if it is of another run or known already."""
        reader, message = arrived
        body = read(message)
        if reader is self._logs:
            return self._log(_line(body))
        self.place = replace(self.place, sequence=message.metadata.sequence.stream)
        if body.get("run_id") != self._run_id:
            return b""
        match message.subject:
            case RunStarted.subject:
                return sse("status", {"status": "running", "attempt": body.get("attempt")}, str(self.place))
            case RunProgressed.subject if body.get("phase"):
                return sse("phase", body["phase"], str(self.place))
            case RunFinished.subject:
                self._last = {name: body.get(name) for name in ("status", "attempt", "error", "error_kind")}
        return b""

    def _log(self, line: LogLine | None) -> bytes:
        if line is None or not self._skipping.is_new(line):
            return b""
        self.place = self.place.behind(line)
        return sse("log", line, str(self.place))


def _state(run: Run) -> dict[str, Any]:
    return {"status": run.status, "attempt": run.attempt, "error": run.error, "error_kind": run.error_kind}


def _subject(run_id: UUID) -> str:
    return LogWritten.subject.replace("*", str(run_id))


def _line(body: dict[str, Any]) -> LogLine | None:
    try:
        return LogLine.model_validate(body.get("line"))
    except ValidationError:
        return None
