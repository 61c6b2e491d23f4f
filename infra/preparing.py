"""Servers that stand apart, made ready for the services, as soon as they are there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import asyncpg
import botocore.exceptions
import httpx
import nats.errors
import structlog

from infra.failures import unwrapped
from infra.servers.minio import set_up_minio
from infra.setup import set_up_nats, set_up_nessie, set_up_object_store, set_up_postgres
from shared.errors import Invalid, Unavailable
from shared.settings import Settings

log = structlog.get_logger()

PARTS: Final[Mapping[str, Callable[[Settings], Awaitable[None]]]] = {
    "postgres": set_up_postgres,
    "nats": set_up_nats,
    "s3": set_up_object_store,
    "minio": set_up_minio,
    "nessie": set_up_nessie,
}
"""Server → what makes it ready. `s3` is any object store, `minio` one that is told its users and whom it notifies."""

_NOT_THERE: Final = (
    OSError,
    nats.errors.Error,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    httpx.TransportError,
    Unavailable,
)
_PAUSE_SECONDS: Final = 0.5


async def prepare(parts: Iterable[str], settings: Settings, *, wait_seconds: float) -> None:
    """Make these servers ready, as `infra`; any number of times.

    Waits so long for each of them, then raises `Unavailable`. `Invalid` for a name that is no part.
    """
    wanted = list(parts)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise Invalid(f"nothing is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            for part in wanted:
                tasks.create_task(_prepare(part, settings, time.monotonic() + wait_seconds))


async def _prepare(part: str, settings: Settings, deadline: float) -> None:
    while True:
        try:
            await PARTS[part](settings)
        except _NOT_THERE as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{part} is not there: {error!r}") from error
        else:
            log.info("prepared", part=part)
            return
        await asyncio.sleep(_PAUSE_SECONDS)
