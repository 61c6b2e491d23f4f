"""Services as separate processes, to be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from shared.settings import Settings

RAT = Path(sys.executable).with_name("rat")


class ServiceProcess:
    """One `rat serve <service>`, or several services in one process."""

    def __init__(self, settings: Settings, log: Path, *services: str) -> None:
        self.services = services
        self._environment = {**os.environ, **settings.environment()}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                RAT, "serve", *self.services, env=self._environment, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.services} were not started"
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(how)
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None


@asynccontextmanager
async def separate(settings: Settings, *services: str, logs: Path) -> AsyncIterator[list[ServiceProcess]]:
    """Run these services, one process each, until the block is left; a name may occur more than once."""
    logs.mkdir(parents=True, exist_ok=True)
    processes = [
        ServiceProcess(settings, logs / f"{number}-{service}.log", service) for number, service in enumerate(services)
    ]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        await asyncio.gather(*(process.stop() for process in processes))
