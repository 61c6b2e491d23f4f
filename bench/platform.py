"""The platform that is measured: the servers of a stack here, all services in one process of their own."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from infra.services import SERVICES
from infra.stacks.stack import Stack
from infra.stacks.table import STACKS
from tests.client import Client, client
from tests.outside import nats_client
from tests.processes import ServiceProcess
from tests.waiting import eventually

EVENTS = ("run.started", "run.finished", "file.landed")


@dataclass
class Heard:
    """When which event of which run was heard here, in seconds of `time.perf_counter`."""

    times: dict[tuple[str, str], float] = field(default_factory=dict)
    bodies: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def when(self, event: str, run_id: str, within: float = 120) -> float:
        """Wait until an event of a run is heard, and say when that was."""
        async with asyncio.timeout(within):
            while (event, run_id) not in self.times:
                self.changed.clear()
                await self.changed.wait()
        return self.times[event, run_id]


@dataclass
class Platform:
    """A platform with its user, and what it says."""

    stack: Stack
    user: Client
    heard: Heard
    process: ServiceProcess

    def processes(self) -> list[psutil.Process]:
        """Every process of the platform: services, runner processes, servers."""
        own = psutil.Process(self.process.pid)
        servers = [psutil.Process(pid) for pid in self.stack.pids.values()]
        found = {one.pid: one for parent in (own, *servers) for one in (parent, *parent.children(recursive=True))}
        return list(found.values())


@asynccontextmanager
async def platform(stack_name: str, *, workers: int) -> AsyncIterator[Platform]:
    """Start everything on a stack with so many runner processes, warm, until the block is left."""
    with TemporaryDirectory(prefix="rat-bench-", ignore_cleanup_errors=True) as folder:
        async with STACKS[stack_name](Path(folder) / "data", gateway_port=0) as stack:
            settings = stack.settings.model_copy(update={"runner_workers": workers, "log_level": "warning"})
            process = ServiceProcess(settings, Path(folder) / "services.log", *SERVICES)
            await process.start()
            try:
                async with (
                    client(settings, f"http://127.0.0.1:{settings.gateway_port}") as user,
                    _listening(stack) as heard,
                ):
                    await eventually(lambda: user.get("/pipelines"), within=60)
                    await _warm(user, workers)
                    yield Platform(stack, user, heard, process)
            finally:
                await process.stop()


async def _warm(user: Client, workers: int) -> None:
    """Let every process of the pool have run something."""
    name = await user.pipeline("default.bronze.warm", "select 1 as id")
    for _ in range(4 * workers):
        await user.succeeded(await user.run(name))


@asynccontextmanager
async def _listening(stack: Stack) -> AsyncIterator[Heard]:
    heard = Heard()
    settings = stack.settings
    connection = await nats_client(settings)

    async def note(message: Any) -> None:
        now = time.perf_counter()
        body = json.loads(message.data)
        heard.times.setdefault((message.subject, str(body.get("run_id"))), now)
        heard.bodies.append((message.subject, now, body))
        heard.changed.set()

    for event in EVENTS:
        await connection.subscribe(event, cb=note)
    try:
        yield heard
    finally:
        await connection.close()
