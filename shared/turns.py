"""Waiting for one of a bounded number of places, and no longer than somebody would who has asked for something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import Exhausted


@asynccontextmanager
async def turn(places: asyncio.Semaphore, *, within_seconds: float, otherwise: str) -> AsyncIterator[None]:
    """Have a place until the block is left; `Exhausted`, with the message `otherwise`, where none gets free in time."""
    try:
        async with asyncio.timeout(within_seconds):
            await places.acquire()
    except TimeoutError as error:
        raise Exhausted(otherwise) from error
    try:
        yield
    finally:
        places.release()
