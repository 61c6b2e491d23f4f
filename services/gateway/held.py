"""Answers that are streamed, and held back until it is known that they begin well."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from litestar import Response
from litestar.response import Stream

from services.gateway.dependencies import Departure
from shared.background import end

_HELD_BYTES: Final = 4 * 1024**2
"""How much of an answer is held back: an error before that is still told with its own status."""
_CLIENT_LEFT: Final = 499
"""Nobody sees this status but who looks at what was counted: nginx calls it so."""


async def held(content: AsyncGenerator[bytes, None], media_type: str, departure: Departure) -> Response[Any]:
    """The whole answer if it is a small one, else a stream of it; its making ends when the client has left."""
    pieces: list[bytes] = []
    beginning, leaving = asyncio.create_task(_beginning(content, pieces)), asyncio.create_task(departure())
    try:
        await asyncio.wait({beginning, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            if beginning.result():
                return Response(b"".join(pieces), media_type=media_type)
            return Stream(_continued(pieces, content), media_type=media_type)
    finally:
        await end({beginning, leaving})
    await content.aclose()
    return Response(b"", status_code=_CLIENT_LEFT, media_type=media_type)


async def _beginning(content: AsyncGenerator[bytes, None], pieces: list[bytes]) -> bool:
    """Collect the pieces of an answer until there is enough of them, and say whether that is all of it."""
    size = 0
    async for piece in content:
        pieces.append(piece)
        size += len(piece)
        if size >= _HELD_BYTES:
            return False
    return True


async def _continued(pieces: list[bytes], content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield b"".join(pieces)
    pieces.clear()
    async with aclosing(content):
        async for piece in content:
            yield piece
