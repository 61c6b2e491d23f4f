"""One server of a stack: started, waited for, started again when it dies, stopped."""

import asyncio
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from shared.background import end
from shared.errors import Unavailable

log = structlog.get_logger()

_DEATHS_ALLOWED: Final = 5
_DEATHS_SECONDS: Final = 60.0
_READY_SECONDS: Final = 120.0
"""A database that recovers from a crash may take its time."""
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.25
_LOG_LINES: Final = 20


@dataclass(frozen=True)
class Server:
    """How a server is run."""

    name: str
    command: tuple[str, ...]
    directory: Path
    set_up: Callable[[], Awaitable[None]]
    """Makes it ready for the services, any number of times; raises while the server is not there yet."""
    not_there: tuple[type[Exception], ...]
    """What `set_up` raises while the server is not there yet."""
    clear: Callable[[], None]
    """Removes what a former one left in its way, before each start."""
    stop_signal: signal.Signals
    stop_seconds: float
    """How long it may take to stop before it is killed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Servers that have to be ready before this one is started, and started again."""
    renewal_seconds: float | None = None
    """How often it is set up again while it runs, for what somebody might remove; None for never."""


def nothing_to_clear() -> None:
    """The `clear` of a server that nothing of a former one is in the way of."""


class KeptServer:
    """A server that runs, and runs again."""

    def __init__(self, server: Server, *, log_file: Path, group: int, lock: int) -> None:
        self._server = server
        self._log_file = log_file
        self._group = group
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._deaths: deque[float] = deque(maxlen=_DEATHS_ALLOWED)
        self._needs: list[KeptServer] = []
        self._is_wanted = asyncio.Event()
        self._is_wanted.set()
        self._ready = asyncio.Event()

    def find_needs(self, servers: Mapping[str, "KeptServer"]) -> None:
        """Pick those that have to be ready before this one; what is not among them is somewhere else, and not ours."""
        self._needs = [servers[name] for name in self._server.needs if name in servers]

    @property
    def is_ready(self) -> bool:
        """Whether it runs and is set up."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return None if self._process is None or self._gone.done() else self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is set up; `Unavailable`, with the end of its log, if it dies instead."""
        if self._log_file.exists():
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        if not await self._run():
            raise Unavailable(f"{self._server.name} did not start; {self._end_of_log()}")

    async def keep(self) -> None:
        """Start it again whenever it dies, for ever; `Unavailable` when it died five times within a minute."""
        while True:
            await self._until_gone()
            self._ready.clear()
            if self._is_wanted.is_set():
                await self._note_death()
            try:
                await self._run()
            except Exception:
                log.exception("server is not fit for use", server=self._server.name)
                await self.kill()

    async def _until_gone(self) -> None:
        while not self._gone.done():
            await asyncio.wait({self._gone}, timeout=self._server.renewal_seconds)
            if not self._gone.done():
                await self._renew()

    async def _renew(self) -> None:
        renewing = asyncio.create_task(self._renewed())
        try:
            await asyncio.wait({renewing, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                await renewing
        except Exception as error:
            # Others that it works with may be away; it is tried again soon.
            log.warning("server could not be set up again", server=self._server.name, error=repr(error))
        finally:
            await _cancelled(renewing)

    async def _renewed(self) -> None:
        await self._server.set_up()

    async def _note_death(self) -> None:
        self._deaths.append(time.monotonic())
        if len(self._deaths) == _DEATHS_ALLOWED and self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS:
            raise Unavailable(f"{self._server.name} died {_DEATHS_ALLOWED} times within a minute; {self._end_of_log()}")
        log.warning("server died", server=self._server.name, log=str(self._log_file))
        # At once, if it does not do so often.
        recently = sum(died > time.monotonic() - _DEATHS_SECONDS for died in self._deaths)
        await asyncio.sleep(0.25 * (recently - 1))

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._process is not None:
            self._ready.clear()
            self._process.kill()
            await asyncio.shield(self._gone)

    async def until_ready(self) -> None:
        """Wait until it runs and is set up."""
        await self._ready.wait()

    async def take_away(self) -> None:
        """Kill it, and let nothing start it again until it is brought back."""
        self._is_wanted.clear()
        await self.kill()

    def bring_back(self) -> None:
        """Let it be started again."""
        self._is_wanted.set()

    async def stop(self) -> None:
        """Stop it in its own way; kill it when that takes too long."""
        if self._process is None:
            return
        self._ready.clear()
        self._process.send_signal(self._server.stop_signal)
        await asyncio.wait({self._gone}, timeout=self._server.stop_seconds)
        await self.kill()

    async def _run(self) -> bool:
        """Start it and wait until it is set up, or dead."""
        await asyncio.to_thread(self._server.clear)
        for needed in self._needs:
            await needed.until_ready()
        await self._is_wanted.wait()
        self._spawn()
        return await self._is_set_up()

    def _spawn(self) -> None:
        with self._log_file.open("ab") as output:
            process = subprocess.Popen(
                self._server.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._server.directory,
                env=dict(self._server.environment),
                pass_fds=[self._lock],
                process_group=self._group,
            )
        self._process = process
        loop = asyncio.get_running_loop()
        gone = self._gone = loop.create_future()

        def wait() -> None:
            process.wait()
            with suppress(RuntimeError):  # the loop was closed before
                loop.call_soon_threadsafe(gone.set_result, None)

        # Not one of the loop's own executor, which it would hold for as long as the server lives.
        threading.Thread(target=wait, name=f"waits for {self._server.name}", daemon=True).start()

    async def _is_set_up(self) -> bool:
        setting_up = asyncio.create_task(self._set_up())
        try:
            await asyncio.wait({setting_up, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._gone.done():
                return False
            await setting_up
        finally:
            await _cancelled(setting_up)
        self._ready.set()
        return True

    async def _set_up(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._server.set_up()
            except self._server.not_there:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            # Some take seconds, and start the later the more often they are asked for it.
            pause = min(1.2 * pause, _LONGEST_PAUSE_SECONDS)

    def _end_of_log(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return f"the end of {self._log_file}:\n" + "\n".join(lines)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Let a task end, however it does."""
    await end({task})
    if not task.cancelled():
        task.exception()
