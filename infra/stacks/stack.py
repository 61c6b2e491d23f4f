"""What every stack is: servers of one data directory, ready for the services for as long as a block runs."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from infra.servers.directory import Claim
from infra.servers.server import KeptServer, Server
from shared.errors import NotFound
from shared.settings import Settings

PARTS: Final = ("postgres", "nats", "object_store", "lakehouse")
"""What servers of a stack are for."""


class RunningServer(Protocol):
    """A server that runs and is started again when it dies, whoever sees to that."""

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""

    @property
    def is_ready(self) -> bool:
        """Whether it runs and is set up."""

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""

    async def until_ready(self) -> None:
        """Wait until it runs and is set up."""

    async def take_away(self) -> None:
        """Kill it, and let nothing start it again until it is brought back."""

    def bring_back(self) -> None:
        """Let it be started again."""


class Stack:
    """Servers that run, and what a process needs to know to use them.

    A server is called by its own name or by the part that it plays, one of `PARTS`. Several may play one part, and one
    may play several.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        servers: Mapping[str, RunningServer],
        parts: Mapping[str, Sequence[str]],
    ) -> None:
        self.settings = settings
        self.directory = directory
        self._servers = servers
        self._parts = parts

    @property
    def servers(self) -> list[str]:
        """The names of the servers, in the order in which they are started."""
        return list(self._servers)

    @property
    def pids(self) -> dict[str, int]:
        """Name → process id of the servers that are running now."""
        return {name: server.pid for name, server in self._servers.items() if server.pid is not None}

    @property
    def ready(self) -> set[str]:
        """The names of the servers that run and are set up."""
        return {name for name, server in self._servers.items() if server.is_ready}

    def playing(self, part: str) -> list[str]:
        """The names of the servers that play a part."""
        return [name for name in self._parts.get(part, ()) if name in self._servers]

    async def kill(self, name: str) -> None:
        """Kill with SIGKILL and wait until it is gone; it is started again like after any death."""
        await asyncio.gather(*(server.kill() for server in self._called(name)))

    async def until_ready(self, name: str) -> None:
        """Wait until it runs and is set up."""
        await asyncio.gather(*(server.until_ready() for server in self._called(name)))

    @asynccontextmanager
    async def away(self, name: str) -> AsyncIterator[None]:
        """Kill with SIGKILL, and let nothing start it again until the block is left; it is ready then."""
        servers = self._called(name)
        try:
            await asyncio.gather(*(server.take_away() for server in servers))
            yield
        finally:
            # All of them before any is waited for: what plays a part together may need each other.
            for server in servers:
                server.bring_back()
        await self.until_ready(name)

    def _called(self, name: str) -> list[RunningServer]:
        names = [name] if name in self._servers else self.playing(name)
        if not names:
            raise NotFound(f"no server is called {name!r}, and none plays that part; there are {self.servers}")
        return [self._servers[each] for each in names]


def players(names: Iterable[str], parts: Mapping[str, Sequence[str]]) -> set[str]:
    """The servers that have these names or play these parts."""
    return {server for name in names for server in parts.get(name, (name,))}


@asynccontextmanager
async def kept(described: Iterable[Server], claim: Claim, group: int) -> AsyncIterator[dict[str, KeptServer]]:
    """Start servers together, keep them alive until the block is left, and stop them from the last to the first.

    They are given by name. One that needs others is started when those are ready, now and whenever it died. `group` is
    the guardian's process group, which they become part of.
    """
    logs = claim.folder("logs")
    servers = {
        server.name: KeptServer(server, log_file=logs / f"{server.name}.log", group=group, lock=claim.lock)
        for server in described
    }
    for server in servers.values():
        server.find_needs(servers)
    try:
        async with asyncio.TaskGroup() as starting:
            for server in servers.values():
                starting.create_task(server.start())
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(server.keep()) for server in servers.values()]
            try:
                yield servers
            finally:
                for keeper in keepers:
                    keeper.cancel()
    finally:
        # What writes to the others stops before them.
        for server in reversed(servers.values()):
            await server.stop()
