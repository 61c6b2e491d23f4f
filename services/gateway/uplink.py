"""The object store at presigned addresses: the gateway has no keys of its own."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Final

import anyio
import httpx

from shared.errors import Internal, NotFound, Unavailable
from shared.lines import Lines
from shared.settings import Settings
from shared.tls import trusting

_PIECE: Final = 256 * 1024


@dataclass(frozen=True)
class Sent:
    """What the store says of an object that was put."""

    version_id: str | None
    etag: str
    size_bytes: int


class Uplink:
    """Puts and gets objects, piece by piece."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def put(self, url: str, content: IO[bytes], *, size_bytes: int, content_type: str) -> Sent:
        """Send a file that is open at its beginning."""
        headers = {"content-length": str(size_bytes), "content-type": content_type}
        try:
            answer = await self._http.put(url, content=_pieces(content), headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"the object store cannot be reached: {error!r}") from error
        _check(answer)
        return Sent(answer.headers.get("x-amz-version-id"), answer.headers["etag"].strip('"'), size_bytes)

    async def lines(self, url: str) -> AsyncGenerator[str, None]:
        """Read a text object line by line."""
        try:
            async with self._http.stream("GET", url) as answer:
                _check(answer)
                text = Lines()
                async for piece in answer.aiter_bytes():
                    for line in text.cut(piece):
                        yield line
                for line in text.rest():
                    yield line
        except httpx.HTTPError as error:
            raise Unavailable(f"the object store cannot be reached: {error!r}") from error


async def _pieces(content: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await anyio.to_thread.run_sync(content.read, _PIECE):
        yield piece


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    if answer.status_code == 404:
        raise NotFound("the object store does not have it any more")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise Unavailable(f"the object store refused for now: {answer.status_code}")
    raise Internal(f"the object store refused a presigned address: {answer.status_code}")


@asynccontextmanager
async def uplink(settings: Settings) -> AsyncIterator[Uplink]:
    """Open connections to the store until the block is left."""
    timeout = httpx.Timeout(60, connect=5)
    async with httpx.AsyncClient(
        timeout=timeout,
        limits=httpx.Limits(max_connections=100),
        verify=trusting(settings.s3_ca_file),
        trust_env=False,
    ) as http:
        yield Uplink(http)
