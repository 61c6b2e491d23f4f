"""The processes that run statements: a bounded number, kept warm, and killed when they take too long."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog

from services.query.frames import HEADER, Ask, Ended, Found, Kind, Named, frame
from shared.background import background, every
from shared.errors import BY_CODE, Internal, TimedOut
from shared.processes import kill
from shared.settings import Settings
from shared.turns import turn

log = structlog.get_logger()

_IDLE_SECONDS: Final = 60.0
_QUEUE_SECONDS: Final = 30.0
"""How long a statement waits for a worker that is free."""


class Worker:
    """One process and its pipes, for one statement at a time."""

    def __init__(self, process: Process, spill: Path, timeout_seconds: float) -> None:
        self._process = process
        self._spill = spill
        self._timeout_seconds = timeout_seconds
        self._remaining = timeout_seconds
        self.is_free = True
        """Whether nothing is left of the last statement, and the process can take another one."""
        self.free_since = 0.0
        """By the clock of the event loop."""

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def ask(self, ask: Ask) -> Named:
        """Begin with a statement: the answer is what it names. Raises what is wrong with it."""
        self.is_free = False
        self._remaining = self._timeout_seconds
        await self._receive(Kind.READY)
        # A process that had to start first was not at work on the statement.
        self._remaining = self._timeout_seconds
        self._send(Kind.ASK, ask)
        named: Named = json.loads(await self._receive(Kind.NAMES))
        return named

    async def run(self, found: Found, find: Callable[[Named], Awaitable[Found]]) -> AsyncIterator[bytes | Ended]:
        """Run the statement: pieces of an Arrow IPC stream, and at last how it ended.

        `find` is asked for what the views name that were found.
        """
        self._send(Kind.RUN, found)
        while True:
            kind, body = await self._next()
            if kind == Kind.NAMES:
                self._send(Kind.RUN, await find(json.loads(body)))
                continue
            if kind == Kind.END:
                ended: Ended = json.loads(body)
                self.is_free = True
                yield ended
                return
            yield body

    async def kill(self) -> None:
        """End the process, whatever it is doing."""
        await kill(self._process)
        await asyncio.to_thread(rmtree, self._spill, ignore_errors=True)

    def _send(self, kind: Kind, body: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(frame(kind, json.dumps(body).encode()))

    async def _receive(self, wanted: Kind) -> bytes:
        kind, body = await self._next()
        if kind != wanted:
            raise Internal(f"a query worker said {kind!r} in place of {wanted!r}")
        return body

    async def _next(self) -> tuple[Kind, bytes]:
        """The next frame, within what is left of the time; an error that it holds is raised."""
        assert self._process.stdout is not None
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(max(self._remaining, 0.001)):
                number, length = HEADER.unpack(await self._process.stdout.readexactly(HEADER.size))
                body = await self._process.stdout.readexactly(length)
        except TimeoutError as error:
            raise TimedOut(f"the query took longer than {self._timeout_seconds:g} s") from error
        except asyncio.IncompleteReadError as error:
            raise Internal("the process that ran the query died") from error
        self._remaining -= clock() - began
        kind = Kind(number)
        if kind == Kind.ERROR:
            self.is_free = True
            failed = json.loads(body)
            raise BY_CODE[failed["code"]](failed["message"], details=failed["details"])
        return kind, body


class Workers:
    """All workers of a service."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._slots = asyncio.Semaphore(settings.query_workers)
        self._alive: set[Worker] = set()
        self._idle: list[Worker] = []
        self._started = 0

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Worker]:
        """Lend a worker for one statement; `Exhausted` when none gets free for half a minute."""
        refusal = f"{self._settings.query_workers} queries are running already: try again later"
        async with turn(self._slots, within_seconds=_QUEUE_SECONDS, otherwise=refusal):
            worker = await self._take()
            try:
                yield worker
            finally:
                await self._give_back(worker)

    async def warm_up(self) -> None:
        """Have one worker ready."""
        self._idle.append(await self._start())

    async def close(self) -> None:
        """End all workers, and with them what they run."""
        await asyncio.gather(*(worker.kill() for worker in self._alive))

    async def trim(self) -> None:
        """End the workers that have been idle for a while, but for one."""
        now = asyncio.get_running_loop().time()
        tired = [worker for worker in self._idle[:-1] if now - worker.free_since > _IDLE_SECONDS]
        for worker in tired:
            self._idle.remove(worker)
            await self._end(worker)

    async def _take(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await self._end(worker)
        return await self._start()

    async def _give_back(self, worker: Worker) -> None:
        if worker.is_free and worker.is_alive:
            worker.free_since = asyncio.get_running_loop().time()
            self._idle.append(worker)
        else:
            await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        await worker.kill()
        self._alive.discard(worker)

    async def _start(self) -> Worker:
        self._started += 1
        spill = self._directory / str(self._started)
        spill.mkdir()
        settings = self._settings
        own = settings.model_copy(
            update={
                "s3_keys": {"query": settings.s3_key("query")},
                "postgres_passwords": {},
                "nats_passwords": {},
                "spill_directory": str(spill),
            }
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "services.query.worker"),
            stdin=PIPE,
            stdout=PIPE,
            env={**own.environment(), "HOME": str(spill)},
            cwd=spill,
            # Ctrl-C is for the service, which ends its workers by itself.
            start_new_session=True,
        )
        worker = Worker(process, spill, settings.query_timeout_seconds)
        self._alive.add(worker)
        return worker


@asynccontextmanager
async def workers(settings: Settings) -> AsyncIterator[Workers]:
    """Keep workers, one of them warm, until the block is left."""
    with TemporaryDirectory(prefix="query-", dir=settings.spill_directory, ignore_cleanup_errors=True) as directory:
        pool = Workers(settings, Path(directory))
        await pool.warm_up()
        try:
            async with background(lambda: every(_IDLE_SECONDS, pool.trim)):
                yield pool
        finally:
            await pool.close()
