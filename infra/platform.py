"""The whole platform on one machine: the servers of a stack, and all services in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from os import getpid
from pathlib import Path
from typing import Final

import httpx

from infra.connection import FILE_NAME, Connection, NatsConnection, NatsUser, S3Connection
from infra.servers.directory import absolute, claimed, write_privately
from infra.servers.ports import is_free
from infra.services import SERVICES, serving
from infra.stacks.table import started
from shared.errors import Conflict, Unavailable
from shared.settings import Settings

_READY_SECONDS: Final = 60.0


@asynccontextmanager
async def platform(data: Path, *, port: int, stack: str = "embedded") -> AsyncIterator[Connection]:
    """Run the platform with its data in this directory until the block is left; it is ready when the block begins.

    `stack` is one of the table's. A port of 0 becomes a free one. Meanwhile `connection.json` in the directory tells
    others where it is. `Conflict` if another has the directory or the port.
    """
    if port and not is_free(port):
        # No server need be started for that. If a platform on this directory has the port, that is what is said.
        async with claimed(absolute(data)):
            raise Conflict(f"the gateway cannot listen on port {port}: it is in use or not allowed; 0 takes a free one")
    # The servers need longer to start than the services to be imported.
    loading = asyncio.get_running_loop().run_in_executor(None, _load_services)
    async with started(stack, data, gateway_port=port) as servers:
        await loading
        # Left behind by one that was killed.
        (servers.directory / FILE_NAME).unlink(missing_ok=True)
        token = await _token(servers.settings, servers.directory)
        async with serving(SERVICES, servers.settings) as running:
            connection = _connection_to(running["gateway"], token, servers.settings)
            await _until_ready(connection.url)
            with _announced(connection, servers.directory):
                yield connection


def _load_services() -> None:
    for service in SERVICES.values():
        service.load()


async def _until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        while True:
            try:
                answer = await client.get("/health/ready")
                found = answer.text
                if answer.is_success:
                    return
            except httpx.TransportError as error:
                found = repr(error)
            if time.monotonic() > deadline:
                raise Unavailable(f"the platform is not ready after {_READY_SECONDS:g} s: {found}")
            await asyncio.sleep(0.05)


async def _token(settings: Settings, data: Path) -> str | None:
    """The token of whoever may read the data directory; None where none is needed."""
    # The module comes with the gateway, which is not imported before it is needed.
    from infra.tokens import kept_token
    from services.gateway.service import is_open

    return None if is_open(settings) else await kept_token(settings, data / "token")


def _connection_to(url: str, token: str | None, settings: Settings) -> Connection:
    """How to reach the platform in this process whose gateway listens on `url`."""
    uploader = settings.s3_key("uploader")
    return Connection(
        url=url,
        token=token,
        nats=NatsConnection(
            url=settings.nats_urls[0],
            ca_file=settings.nats_ca_file,
            publisher=NatsUser(user="publisher", password=settings.nats_password("publisher")),
            subscriber=NatsUser(user="subscriber", password=settings.nats_password("subscriber")),
        ),
        s3=S3Connection(
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            bucket=settings.s3_bucket,
            access_key_id=uploader.access_key_id,
            secret_access_key=uploader.secret_access_key.get_secret_value(),
        ),
        pid=getpid(),
        version=version("rat-platform"),
    )


@contextmanager
def _announced(connection: Connection, data: Path) -> Iterator[None]:
    """Let others find the platform until the block is left."""
    path = data / FILE_NAME
    write_privately(path, connection.model_dump_json(indent=2, exclude_none=True) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
