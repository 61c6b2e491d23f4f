"""Gateway: the HTTP API, served in this process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn

from contracts.audit import AuditRecorded
from services.gateway.app import Means, application
from services.gateway.asks import QUERIES
from services.gateway.edge import Edge, is_loopback
from services.gateway.metrics import Metrics
from services.gateway.tail import STREAMS
from services.gateway.tokens import Tokens, tokens
from services.gateway.uplink import uplink
from shared.bus import Bus, connect
from shared.errors import Conflict, Internal, Invalid
from shared.settings import Settings

_BACKLOG: Final = 2048
_IDLE_SECONDS: Final = 75
"""How long a connection is kept that is not used: longer than clients do, whose next request would meet its end."""
_GRACE_SECONDS: Final = 3
"""How long requests may go on when the gateway stops."""


@dataclass(frozen=True)
class Gateway:
    """Says what was done through the API."""

    bus: Bus

    async def record(self, event: AuditRecorded) -> None:
        """Say who did what, once its outcome is known."""
        await self.bus.publish(event)


def wire(bus: Bus, gateway: Gateway) -> None:
    """Say what the service says, asks and reads; it answers nobody on the bus."""
    bus.say(AuditRecorded)
    bus.asks(*QUERIES)
    bus.reads(*STREAMS)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[str]:
    """Run the service until the block is left, and give the address that it is bound to."""
    bus = connect(settings, "gateway")
    gateway = Gateway(bus)
    wire(bus, gateway)
    host = settings.gateway_host
    async with AsyncExitStack() as exits:
        store = await exits.enter_async_context(uplink(settings))
        accepted = await exits.enter_async_context(_accepted(settings))
        if accepted is not None:
            bus.check("postgres", accepted.any)
        await exits.enter_async_context(bus.running())
        metrics, closing = Metrics(), asyncio.Event()
        app = application(Means(bus, store, metrics, accepted, closing))
        edge = Edge(app, metrics, gateway.record, own_host=host, is_open=accepted is None)
        listener = exits.enter_context(_listening(host, settings.gateway_port))
        await exits.enter_async_context(_serving(edge, listener))
        shown = f"[{host}]" if ":" in host else host
        try:
            yield f"http://{shown}:{listener.getsockname()[1]}"
        finally:
            closing.set()


@asynccontextmanager
async def _accepted(settings: Settings) -> AsyncIterator[Tokens | None]:
    """The tokens that are accepted; None if none is needed. `Invalid` if one is needed and there is none."""
    if is_open(settings):
        yield None
        return
    async with tokens(settings) as known:
        if not await known.any():
            raise Invalid(
                f"the gateway on {settings.gateway_host} wants a token, and there is no token: make one with "
                "`rat token create`, or say that nobody needs one (--no-auth, or RAT_GATEWAY_OPEN=true)"
            )
        yield known


def is_open(settings: Settings) -> bool:
    """Whether requests need no token."""
    return is_loopback(settings.gateway_host) if settings.gateway_open is None else settings.gateway_open


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, so that the port is known before anything is served."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, for only then asyncio sends small packets at once; else each answer waits 40 ms for the last one's.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host.strip("[]"), port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise Conflict(f"the gateway cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield listener


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@asynccontextmanager
async def _serving(edge: Edge, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        edge,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                raise Internal("the HTTP server did not start")
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await task
