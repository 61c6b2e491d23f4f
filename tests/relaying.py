"""A port between a client and a server, whose connections may be slow, or go silent without being closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

_PIECE: Final = 65_536


class Relay:
    """Passes on what clients and the server at an address say."""

    def __init__(self, host: str, port: int, pause_seconds: float) -> None:
        self._server = (host, port)
        self._pause_seconds = pause_seconds
        self._talking = True
        self.connections = 0

    def silence(self) -> None:
        """Swallow from now on what is said over the connections that there are; those to come are fine."""
        self._talking = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a client."""
        self.connections += 1
        is_new = not self._talking
        server_reader, server_writer = await asyncio.open_connection(*self._server)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, pause_seconds: float = 0.0) -> None:
            with suppress(OSError):
                while piece := await source.read(_PIECE):
                    await asyncio.sleep(pause_seconds)
                    if is_new or self._talking:
                        target.write(piece)
                        await target.drain()
            target.close()

        await asyncio.gather(copy(reader, server_writer, self._pause_seconds), copy(server_reader, writer))


@asynccontextmanager
async def relay(host: str, port: int, *, pause_seconds: float = 0.0) -> AsyncIterator[tuple[Relay, int]]:
    """A relay to this address, and the port of 127.0.0.1 that it listens on.

    It pauses before it passes on each 64 KiB that a client says.
    """
    between = Relay(host, port, pause_seconds)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    try:
        yield between, server.sockets[0].getsockname()[1]
    finally:
        server.close()
