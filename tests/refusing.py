"""An object store that answers as one does that has too much to do: the real one, behind a door that may be shut."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from shared.settings import Settings

_BODY = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>%s</Code><Message>%s</Message></Error>"""


@dataclass
class Door:
    """Which requests are refused, and those that were."""

    refuses: Callable[[str, str], bool] = lambda method, path: False
    """From a method and a path to whether that is refused."""
    status: int = 503
    code: bytes = b"SlowDown"
    refused: list[tuple[str, str]] = field(default_factory=list)


@asynccontextmanager
async def behind_a_door(settings: Settings) -> AsyncIterator[tuple[Settings, Door]]:
    """Settings by which the object store is reached through a door."""
    door = Door()
    upstream = urlsplit(settings.s3_endpoint)
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if door.refuses(request.method, request.raw_path):
                door.refused.append((request.method, request.raw_path))
                return web.Response(status=door.status, body=_BODY % (door.code, b"not now"))
            url = URL(f"{upstream.scheme}://{upstream.netloc}{request.raw_path}", encoded=True)
            headers = request.headers.copy()
            # A body that comes in pieces is whole by the time it is passed on.
            headers.popall("Transfer-Encoding", None)
            if headers.popall("Expect", None) and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await request.read()
            async with session.request(
                request.method, url, headers=headers, data=body, skip_auto_headers=("User-Agent", "Accept")
            ) as answer:
                return await _passed_on(request, answer)

        server = web.Server(handle)
        runner = web.ServerRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        try:
            yield settings.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{port}"}), door
        finally:
            await runner.cleanup()


async def _passed_on(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    kept = {name: value for name, value in answer.headers.items() if name.lower() != "transfer-encoding"}
    content = await answer.read()
    if request.method == "HEAD":
        # Its length is of what is not sent.
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        return response
    kept.pop("Content-Length", None)
    return web.Response(status=answer.status, headers=kept, body=content)
