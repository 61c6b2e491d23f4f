"""The object store's bucket notification: what the filer posts here is published on `bucket.events`."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from pydantic import ValidationError

from infra.servers.notifications import FilerEvent, Notification, notification_of
from shared.background import end
from shared.bus import close_for_good
from shared.pulling import inbox_prefix
from shared.settings import Settings
from shared.tls import nats_tls

log = structlog.get_logger()

SUBJECT: Final = "bucket.events"

_PATIENCE_SECONDS: Final = 5.0
"""How long a post waits for NATS before it is refused; the filer gives up on an answer after ten seconds."""
_LARGEST_BODY: Final = 16 * 1024 * 1024


@asynccontextmanager
async def webhook(settings: Settings) -> AsyncIterator[str]:
    """Listen on loopback until the block is left, and give the address that the filer is to post to.

    The address holds a secret. While NATS is away, posts are answered with 503, and the filer repeats them.
    """
    receiver = _Receiver(f"/{secrets.token_urlsafe(24)}", settings)
    connecting = asyncio.create_task(receiver.stay_connected())
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{receiver.path}"
    finally:
        server.close()
        receiver.hang_up()
        await end({connecting})


class _Receiver:
    def __init__(self, path: str, settings: Settings) -> None:
        self.path = path
        self._settings = settings
        self._client = Client()
        self._is_connected = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def stay_connected(self) -> None:
        """Connect as soon as NATS is there, and again whenever it was away, for ever."""
        while True:
            self._client, is_closed = Client(), asyncio.Event()
            try:
                await self._client.connect(
                    self._settings.nats_urls,
                    user="infra",
                    password=self._settings.nats_password("infra"),
                    tls=nats_tls(self._settings),
                    inbox_prefix=inbox_prefix("infra"),
                    name="bucket notifications",
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type]  # nats-py takes fractions of a second
                    disconnected_cb=self._note_absence,
                    reconnected_cb=self._note_presence,
                    closed_cb=_setting(is_closed),
                    error_cb=_keep_quiet,
                )
                self._is_connected.set()
                # It reconnects by itself, but takes some errors for final that are not.
                await is_closed.wait()
            except (OSError, nats.errors.Error):
                pass
            finally:
                self._is_connected.clear()
                await close_for_good(self._client)
            await asyncio.sleep(0.1)

    def hang_up(self) -> None:
        """End the filer's connections."""
        for writer in self._open:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the posts of one connection, one after the other."""
        self._open.add(writer)
        try:
            while (post := await _read_post(reader)) is not None:
                path, body = post
                status = await self._receive(body) if path == self.path else "404 Not Found"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the filer hung up, or it was not the filer
        finally:
            self._open.discard(writer)
            writer.close()

    async def _receive(self, body: bytes) -> str:
        if b"/landing/" not in body:
            return "200 OK"
        try:
            notification = notification_of(FilerEvent.model_validate_json(body), self._settings.s3_bucket)
        except (ValidationError, ValueError) as error:
            log.warning("the filer told something unknown", error=str(error), body=body[:1000].decode(errors="replace"))
            return "400 Bad Request"
        if notification is not None and not await self._publish(notification):
            return "503 Service Unavailable"
        return "200 OK"

    async def _publish(self, notification: Notification) -> bool:
        payload = json.dumps(notification.body(datetime.now(UTC))).encode()
        # The filer repeats what it saw no answer to.
        headers = {"Nats-Msg-Id": f"{notification.name}:{notification.version_id}"}
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._is_connected.wait()
                await self._client.jetstream().publish(SUBJECT, payload, headers=headers)
        except (OSError, nats.errors.Error):  # TimeoutError is an OSError
            return False
        return True

    async def _note_absence(self) -> None:
        self._is_connected.clear()

    async def _note_presence(self) -> None:
        self._is_connected.set()


async def _read_post(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """Path and body of the next request; None when there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    request, *lines = head.split("\r\n")
    _method, path, _version = request.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _LARGEST_BODY:
        raise ValueError(f"a body of {length} bytes")
    return path, await reader.readexactly(length)


def _setting(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def set_event() -> None:
        event.set()

    return set_event


async def _keep_quiet(_error: Exception) -> None:
    """NATS that is away is what the supervisor tells about."""
