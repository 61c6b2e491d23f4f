"""Answers larger than a message: bytes in chunks to the asker's inbox, each sent when the one before was taken.

The asker names an inbox in its query. The answering service sends every chunk as a request, and goes on when it is
confirmed; an asker that is gone, or that takes nothing for half a minute, is noticed by that. The answer to the
query itself, or the error, comes after the last chunk. While there is nothing to send yet, empty chunks show whether
the asker is still there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

import nats.errors
from nats.aio.subscription import Subscription

from contracts.messages import Query
from shared.background import end
from shared.bus import Bus
from shared.errors import Conflict, Unavailable
from shared.parts import in_parts_of
from shared.pulling import inbox_prefix

A = TypeVar("A")

CHUNK_BYTES: Final = 200 * 1024
PATIENCE_SECONDS: Final = 30.0
"""How long an asker may take with one chunk."""
SILENCE_SECONDS: Final = 100.0
"""How long an answering service may take from one chunk to the next: more than to wait for a turn and then to work."""
LOOK_SECONDS: Final = 0.5
"""From one look whether an asker is still there to the next."""
ANSWER_SECONDS: Final = 24 * 3600.0
"""How long the chunks may take in all; whoever asked may be slow to read them."""


def chunks_prefix(asker: str) -> str:
    """What the inboxes for chunks begin with: the only inboxes that another service may send to unasked."""
    return f"{inbox_prefix(asker)}.chunks"


async def send_chunks(bus: Bus, inbox: str, content: AsyncIterator[bytes]) -> None:
    """Send bytes to an inbox; `Conflict` when nobody takes them there any more."""
    async for chunk in in_parts_of(CHUNK_BYTES, content):
        try:
            await bus.connection.request(inbox, chunk, timeout=PATIENCE_SECONDS)
        except nats.errors.NoRespondersError as error:
            raise Conflict(f"nobody listens on {inbox} any more") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise Conflict(f"nothing was taken from {inbox} for {PATIENCE_SECONDS:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"{inbox} cannot be reached: {error!r}") from error


async def left(bus: Bus, inbox: str) -> None:
    """Return as soon as nobody listens on an inbox any more; whoever is only slow to answer is still there."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await bus.connection.request(inbox, b"", timeout=LOOK_SECONDS)
        except nats.errors.NoRespondersError:
            return
        except (TimeoutError, nats.errors.Error, OSError):
            # It has enough to read, or NATS is away: neither says that it is gone.
            continue


async def unless_left(bus: Bus, inbox: str, work: Coroutine[Any, Any, A]) -> A:
    """Do what somebody waits for on an inbox; once nobody does, it is broken off, and `Conflict` is raised."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(left(bus, inbox))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Conflict(f"nobody listens on {inbox} any more")
    finally:
        await end({working, leaving})
        if not working.cancelled():
            working.exception()  # so that asyncio does not report what nobody waits for


class Chunked(Generic[A]):
    """An answer that arrives in chunks: iterate over them, then await `end`."""

    def __init__(self, subscription: Subscription, answer: asyncio.Task[A]) -> None:
        self._subscription = subscription
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks; the error of the answering service, or `Unavailable` if it falls silent."""
        while (chunk := await self._next()) is not None:
            if chunk:
                yield chunk
        await self.end()

    async def end(self) -> A:
        """The answer itself, which comes after the last chunk."""
        return await self._answer

    async def _next(self) -> bytes | None:
        """The next chunk; None when the answer is there: it is only given when all chunks were taken."""
        message = asyncio.create_task(self._subscription.next_msg(timeout=None))
        try:
            await asyncio.wait({message, self._answer}, timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                received = message.result()
                await received.respond(b"")
                return received.data
            if self._answer.done():
                return None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"the connection to NATS was lost: {error!r}") from error
        finally:
            message.cancel()
        raise Unavailable(f"nothing came for {SILENCE_SECONDS:g} s")


@asynccontextmanager
async def asking(bus: Bus, query: Callable[[str], Query[A]]) -> AsyncIterator[Chunked[A]]:
    """Ask a query that takes the name of an inbox, and take its answer in chunks until the block is left."""
    inbox = f"{chunks_prefix(bus.service)}.{uuid4().hex}"
    subscription = await bus.connection.subscribe(inbox)
    answer = asyncio.create_task(bus.ask(query(inbox), timeout=ANSWER_SECONDS))
    try:
        yield Chunked(subscription, answer)
    finally:
        await end({answer})
        if not answer.cancelled():
            answer.exception()  # so that asyncio does not report what an asker did not stay to hear
        with suppress(nats.errors.Error, OSError):
            await subscription.unsubscribe()
