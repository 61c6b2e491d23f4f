"""Server-sent events, as the HTML standard writes them."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

from litestar.response import Stream
from nats.aio.msg import Msg

from services.gateway.encoding import json_bytes
from services.gateway.tail import Tail
from shared.background import end

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
COMMENT: Final = b":\n\n"
"""Says nothing, but shows whoever listens, and all in between, that the connection lives."""

_WAITING: Final = 1000
_ENDS: Final = tuple((end.encode(), f"\\u{ord(end):04x}".encode()) for end in "\x85\u2028\u2029")
"""What some clients take for the end of a line, where the standard does not, and how JSON writes it besides."""


def sse(name: str, data: Any, event_id: str) -> bytes:
    """One event with JSON in it."""
    content = json_bytes(data)
    for line_end, escaped in _ENDS:
        content = content.replace(line_end, escaped)
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event_id.encode(), name.encode(), content)


def event_stream(content: AsyncGenerator[bytes, None], closing: asyncio.Event) -> Stream:
    """An answer of events, which nobody on the way may hold back or keep; it ends when the gateway is closing."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Stream(_until(closing, content), media_type=MEDIA_TYPE, headers=headers)


async def _until(closing: asyncio.Event, content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    closed = asyncio.create_task(closing.wait())
    async with aclosing(content):
        following = asyncio.ensure_future(anext(content, None))
        try:
            while True:
                await asyncio.wait({following, closed}, return_when=asyncio.FIRST_COMPLETED)
                if closed.done() or (piece := following.result()) is None:
                    return
                yield piece
                following = asyncio.ensure_future(anext(content, None))
        finally:
            closed.cancel()
            following.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await following


Arrival = tuple[Tail, Msg]


@asynccontextmanager
async def merged(*tails: Tail) -> AsyncIterator["asyncio.Queue[Arrival | Exception]"]:
    """The messages of several readers in one queue, as they arrive; an error that ends a reader comes there too."""
    queue: asyncio.Queue[Arrival | Exception] = asyncio.Queue(_WAITING)

    async def pump(reader: Tail) -> None:
        try:
            while True:
                message = await reader.next(HEARTBEAT_SECONDS)
                if message is not None:
                    await queue.put((reader, message))
        except Exception as error:
            await queue.put(error)

    tasks = {asyncio.create_task(pump(reader)) for reader in tails}
    try:
        yield queue
    finally:
        await end(tasks)


async def arrival(queue: "asyncio.Queue[Arrival | Exception]", seconds: float) -> Arrival | None:
    """The next message; None if there is none within so many seconds. Raises what ended a reader."""
    try:
        async with asyncio.timeout(seconds):
            arrived = await queue.get()
    except TimeoutError:
        return None
    if isinstance(arrived, Exception):
        raise arrived
    return arrived


def read(message: Msg) -> dict[str, Any]:
    """The JSON of an event; an empty object for what is none."""
    try:
        body = json.loads(message.data)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
