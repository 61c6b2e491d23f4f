"""Jobs that a service does for as long as it lives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from shared.errors import Unavailable

log = structlog.get_logger()

_PAUSE_SECONDS = 1.0


@asynccontextmanager
async def background(*jobs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run these jobs until the block is left; one that fails is logged and started again after a pause."""
    tasks = [asyncio.create_task(_keep_doing(job)) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def every(seconds: float, job: Callable[[], Awaitable[None]], *, wake: asyncio.Event | None = None) -> None:
    """Do the job now, and again after each pause of so many seconds, or sooner when `wake` is set."""
    while True:
        if wake is not None:
            wake.clear()
        await job()
        if wake is None:
            await asyncio.sleep(seconds)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), seconds)


async def _keep_doing(job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await job()
            return
        except (Unavailable, OSError) as error:
            log.warning("background job waits", job=getattr(job, "__qualname__", repr(job)), error=str(error))
        except Exception:
            log.exception("background job failed", job=getattr(job, "__qualname__", repr(job)))
        await asyncio.sleep(_PAUSE_SECONDS)
