"""Jobs that a service does for as long as it lives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import structlog

from shared.errors import Unavailable

log = structlog.get_logger()

_PAUSE_SECONDS = 1.0


@asynccontextmanager
async def background(*jobs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run these jobs until the block is left; one that fails is logged and started again after a pause."""
    tasks = {asyncio.create_task(_keep_doing(job)) for job in jobs}
    try:
        yield
    finally:
        await end(tasks)


async def every(seconds: float, job: Callable[[], Awaitable[None]], *, wake: asyncio.Event | None = None) -> None:
    """Do the job now, and again after each pause of so many seconds, or sooner when `wake` is set."""
    while True:
        if wake is not None:
            wake.clear()
        await job()
        if wake is None:
            await asyncio.sleep(seconds)
        else:
            await happens(wake, within_seconds=seconds)


async def happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    """Wait for an event so long, and say whether it came.

    Python 3.11's `wait_for` loses a cancellation that meets the end of the wait; this does not.
    """
    try:
        async with asyncio.timeout(within_seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is not raised here."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        # A library under the task may use `wait_for`, and lose the cancellation: it is repeated.
        _, running = await asyncio.wait(running, timeout=0.5)


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
