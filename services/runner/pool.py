"""The warm pool: processes spawned ahead that work on one attempt at a time."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
import structlog

from contracts.messages import Message
from services.runner.frames import Failed, FromProcess, Ready, SetUp, frame, read_from_process
from shared.errors import Unavailable
from shared.processes import kill
from shared.settings import Settings

log = structlog.get_logger()

_SHARE_OF_MEMORY: Final = 0.6
_ENVIRONMENT: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE"),
    # Where packages may lie that are not installed beside ours: plugins.
    "PYTHONPATH",
)
"""All that a process sees of the runner's environment: what an author's code runs beside must hold no secrets."""


class ProcessLost(Exception):
    """A process is gone, with or without a reason that anybody knows."""


class Process:
    """One process of the pool."""

    def __init__(self, process: asyncio.subprocess.Process, spill: Path) -> None:
        self._process = process
        self._spill = spill
        self.uses = 0
        self.is_spent = False
        """Whether it is not to be used again, whatever its state."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it was not seen to end: its pipe tells a moment before its exit code does."""
        assert self._process.stdin is not None
        return self._process.returncode is None and not self._process.stdin.is_closing()

    async def send(self, message: Message) -> None:
        """Tell it something; `ProcessLost` when it is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame(message))
            await self._process.stdin.drain()
        except OSError as error:
            raise ProcessLost(await self._epitaph()) from error

    async def receive(self) -> FromProcess:
        """Wait for what it says next; `ProcessLost` as soon as it is gone."""
        assert self._process.stdout is not None
        try:
            return await read_from_process(self._process.stdout)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ProcessLost(await self._epitaph()) from error
        except ValueError as error:
            # An author's code reaches every pipe of its process.
            raise ProcessLost("the process of the run has said what is no message: its code writes to it") from error

    def resident_bytes(self) -> int:
        """How much memory it has; 0 when it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def ended(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()

    async def kill(self) -> None:
        """End it at once, whatever it does, and wait until it is gone."""
        await kill(self._process)
        await asyncio.to_thread(shutil.rmtree, self._spill, ignore_errors=True)

    async def _epitaph(self) -> str:
        code = await self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the process of the run {how}"


class Pool:
    """Warm processes, as many as the runner has workers; more for a while when more are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._warm: list[asyncio.Task[Process]] = []
        self._watchers: set[asyncio.Task[None]] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="rat-runner-", dir=settings.spill_directory))
        # A run that is alone has the whole machine; those that are not share it as the system sees fit.
        self.threads = os.cpu_count() or 1
        self.memory_limit_bytes = int(psutil.virtual_memory().total * _SHARE_OF_MEMORY / settings.runner_workers)
        self._size = settings.runner_workers
        self._lent = 0
        self._is_open = True

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        """Lend a process; it is used again if it is still good when the block is left, and replaced if it is not.

        Whoever leaves the block early, while the process still works, kills it. `Unavailable` when none starts.
        """
        self._lent += 1
        try:
            process = await self._take()
            try:
                yield process
            except BaseException:
                await asyncio.shield(process.kill())
                raise
            await self._take_back(process)
        finally:
            self._lent -= 1
            self._fill()

    def warm_up(self) -> None:
        """Spawn processes ahead."""
        self._fill()

    async def close(self) -> None:
        """End all processes that are not lent."""
        self._is_open = False
        for watcher in self._watchers:
            watcher.cancel()
        for warm in self._warm:
            if warm.done() and not warm.cancelled() and warm.exception() is None:
                await warm.result().kill()
            warm.cancel()
        await asyncio.gather(*self._warm, *self._watchers, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _take(self) -> Process:
        # Where none can be started, new ones are spawned for ever: whoever waits is told by one of their own.
        for _ in range(self._size):
            if not self._warm:
                break
            # One that is ready comes before one that is still being spawned, and the one that worked last before all:
            # it has the metadata of the table in memory, where the next run is one of the same pipeline.
            warm = next((warm for warm in reversed(self._warm) if warm.done()), self._warm[0])
            self._warm.remove(warm)
            try:
                process = await warm
            except (OSError, Unavailable):
                continue  # its watcher tells of it
            if process.is_alive:
                return process
            await process.kill()
        return await self._spawn()

    async def _take_back(self, process: Process) -> None:
        process.uses += 1
        is_worn = (
            process.is_spent
            or process.uses >= self._settings.runner_recycle_runs
            or process.resident_bytes() >= self._settings.runner_recycle_bytes
        )
        if not self._is_open or is_worn or not process.is_alive or len(self._warm) >= self._size:
            await process.kill()
        else:
            self._keep(asyncio.create_task(_as_it_is(process)))

    def _fill(self) -> None:
        while self._is_open and len(self._warm) + self._lent < self._size:
            self._keep(asyncio.create_task(self._spawn()))

    def _keep(self, warm: asyncio.Task[Process]) -> None:
        self._warm.append(warm)
        watcher = asyncio.create_task(self._watch(warm))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, warm: asyncio.Task[Process]) -> None:
        """Replace a process that dies while it waits for work."""
        try:
            process = await asyncio.shield(warm)
        except (OSError, Unavailable) as error:
            log.warning("a process of the pool could not be started", error=str(error))
            await asyncio.sleep(1)
            if warm in self._warm:
                self._warm.remove(warm)
            self._fill()
            return
        await process.ended()
        if warm in self._warm:
            log.warning("a process of the pool died while it waited for work", pid=process.pid)
            self._warm.remove(warm)
            await process.kill()
            self._fill()

    async def _spawn(self) -> Process:
        spill = Path(tempfile.mkdtemp(dir=self._folder))
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.runner.process",
                stdin=PIPE,
                stdout=PIPE,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                # A Ctrl-C in the terminal is for the runner, which ends its processes in its own order.
                start_new_session=True,
            ),
            spill,
        )
        try:
            await self._set_up(process, spill)
        except BaseException:
            await asyncio.shield(process.kill())
            raise
        return process

    async def _set_up(self, process: Process, spill: Path) -> None:
        set_up = SetUp(
            settings=_what_a_run_needs(self._settings).environment(),
            threads=self.threads,
            memory_limit_bytes=self.memory_limit_bytes,
            spill_directory=str(spill),
        )
        try:
            await process.send(set_up)
            said = await process.receive()
        except ProcessLost as error:
            raise Unavailable(f"no process could be started for the run: {error}") from error
        if isinstance(said, Failed):
            raise Unavailable(f"no process could be started for the run: {said.error}")
        assert isinstance(said, Ready), "the first thing that a process says is that it is ready"


@asynccontextmanager
async def pool(settings: Settings) -> AsyncIterator[Pool]:
    """A pool that warms up while the block begins."""
    warm = Pool(settings)
    warm.warm_up()
    try:
        yield warm
    finally:
        await warm.close()


async def _as_it_is(process: Process) -> Process:
    return process


def _what_a_run_needs(settings: Settings) -> Settings:
    """Where everything is, and no password of anything.

    Where no keys are made for runs, there is the runner's own of the object store.
    """
    own = {} if settings.s3_run_role is not None else {"runner": settings.s3_key("runner")}
    return settings.model_copy(
        update={"nats_passwords": {}, "postgres_passwords": {}, "s3_keys": own, "nessie_tokens": {}}
    )
