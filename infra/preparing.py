"""Servers that stand apart, made ready for the services, as soon as they are there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import botocore.exceptions
import httpx
import nats.errors
import structlog

from infra.alive import stay_alive
from infra.failures import unwrapped
from infra.servers.minio import set_up_minio
from infra.setup import set_up_nats, set_up_nessie, set_up_object_store, set_up_postgres
from shared.background import background, every
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
_RENEWAL_SECONDS: Final = 5.0
"""How long is missing at the most what somebody removed."""


async def prepare(parts: Iterable[str], settings: Settings, *, wait_seconds: float) -> None:
    """Make these servers ready, as `infra`; any number of times.

    Waits so long for each of them, then raises `Unavailable`. `Invalid` for a name that is no part.
    """
    wanted = list(parts)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise Invalid(f"nothing is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    await _prepare_all(wanted, settings, wait_seconds=wait_seconds)
    log.info("prepared", parts=wanted)


async def keep_prepared(parts: Sequence[str], settings: Settings) -> None:
    """Make these servers ready again and again, for what somebody might remove, until the task is cancelled."""
    async with background(lambda: every(_RENEWAL_SECONDS, lambda: _prepare_all(parts, settings, wait_seconds=0))):
        await stay_alive(settings)


async def _prepare_all(parts: Iterable[str], settings: Settings, *, wait_seconds: float) -> None:
    with unwrapped():
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(_prepare(part, settings, time.monotonic() + wait_seconds))


async def _prepare(part: str, settings: Settings, deadline: float) -> None:
    while True:
        try:
            await PARTS[part](settings)
        except _NOT_THERE as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{part} is not there: {error!r}") from error
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS)
