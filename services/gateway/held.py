"""Answers that are streamed, and held back until it is known that they begin well."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from litestar import Response
from litestar.response import Stream

_HELD_BYTES: Final = 4 * 1024**2
"""How much of an answer is held back: an error before that is still told with its own status."""


async def held(content: AsyncGenerator[bytes, None], media_type: str) -> Response[Any]:
    """The whole answer if it is a small one, else a stream of it."""
    pieces: list[bytes] = []
    size = 0
    async for piece in content:
        pieces.append(piece)
        size += len(piece)
        if size >= _HELD_BYTES:
            return Stream(_continued(pieces, content), media_type=media_type)
    return Response(b"".join(pieces), media_type=media_type)


async def _continued(pieces: list[bytes], content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield b"".join(pieces)
    pieces.clear()
    async with aclosing(content):
        async for piece in content:
            yield piece
