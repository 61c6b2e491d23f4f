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

from shared.errors import Unavailable

log = structlog.get_logger()

_DEATHS_ALLOWED: Final = 5
_DEATHS_SECONDS: Final = 60.0
_READY_SECONDS: Final = 120.0
"""A database that recovers from a crash may take its time."""
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
        self.is_ready = asyncio.Event()

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
            await asyncio.shield(self._gone)
            self.is_ready.clear()
            self._deaths.append(time.monotonic())
            if len(self._deaths) == _DEATHS_ALLOWED and self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS:
                raise Unavailable(
                    f"{self._server.name} died {_DEATHS_ALLOWED} times within a minute; {self._end_of_log()}"
                )
            log.warning("server died", server=self._server.name, log=str(self._log_file))
            # At once, if it does not do so often.
            recently = sum(died > time.monotonic() - _DEATHS_SECONDS for died in self._deaths)
            await asyncio.sleep(0.25 * (recently - 1))
            try:
                await self._run()
            except Exception:
                log.exception("server is not fit for use", server=self._server.name)
                await self.kill()

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._process is not None:
            self.is_ready.clear()
            self._process.kill()
            await asyncio.shield(self._gone)

    async def stop(self) -> None:
        """Stop it in its own way; kill it when that takes too long."""
        if self._process is None:
            return
        self.is_ready.clear()
        self._process.send_signal(self._server.stop_signal)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._gone), self._server.stop_seconds)
        await self.kill()

    async def _run(self) -> bool:
        """Start it and wait until it is set up, or dead."""
        await asyncio.to_thread(self._server.clear)
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
            setting_up.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await setting_up
        self.is_ready.set()
        return True

    async def _set_up(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                return await self._server.set_up()
            except self._server.not_there:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.02)

    def _end_of_log(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return f"the end of {self._log_file}:\n" + "\n".join(lines)
