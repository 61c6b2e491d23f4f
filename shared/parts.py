"""Streams of bytes cut anew."""

from collections.abc import AsyncIterator


async def in_parts_of(size: int, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in parts of one size and a last one that is smaller."""
    buffer = bytearray()
    async for piece in content:
        buffer += piece
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    if buffer:
        yield bytes(buffer)
