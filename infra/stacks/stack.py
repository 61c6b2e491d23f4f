"""What every stack is: servers of one data directory, ready for the services for as long as a block runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from infra.servers.server import KeptServer
from shared.settings import Settings


class Stack:
    """Servers that run, and what a process needs to know to use them."""

    def __init__(self, settings: Settings, directory: Path, servers: dict[str, KeptServer]) -> None:
        self.settings = settings
        self.directory = directory
        self._servers = servers

    @property
    def pids(self) -> dict[str, int]:
        """Name → process id of the servers that are running now."""
        return {name: server.pid for name, server in self._servers.items() if server.pid is not None}

    async def kill(self, name: str) -> None:
        """Kill a server with SIGKILL and wait until it is gone; it is started again like after any death."""
        await self._servers[name].kill()

    async def until_ready(self, name: str) -> None:
        """Wait until a server runs and is set up."""
        await self._servers[name].is_ready.wait()


@asynccontextmanager
async def kept(servers: dict[str, KeptServer]) -> AsyncIterator[None]:
    """Start servers together, keep them alive until the block is left, and stop them from the last to the first."""
    try:
        async with asyncio.TaskGroup() as starting:
            for server in servers.values():
                starting.create_task(server.start())
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(server.keep()) for server in servers.values()]
            try:
                yield
            finally:
                for keeper in keepers:
                    keeper.cancel()
    finally:
        # What writes to the others stops before them.
        for server in reversed(servers.values()):
            await server.stop()
