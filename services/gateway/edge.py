"""What every request passes on its way in and out: its id, who may send it, what is counted and recorded of it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from litestar import Litestar
from litestar.types import HTTPScope, Message, Receive, Send

from contracts.audit import AuditRecorded
from services.gateway.encoding import json_bytes
from services.gateway.metrics import Metrics
from services.gateway.problems import MEDIA_TYPE, STATUS, as_error, problem
from shared.errors import Forbidden, RatError, Unavailable
from shared.logs import correlation_id

log = structlog.get_logger()

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_LOOPBACK: Final = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

NOTES: Final = "rat_notes"
"""Where in a request's state its `Notes` are."""

ANONYMOUS: Final = "anonymous"
"""Who calls where nobody needs a token."""

Record = Callable[[AuditRecorded], Awaitable[None]]


@dataclass
class Notes:
    """What is learned about a request while it is answered."""

    caller: str = ANONYMOUS
    """The name of the token."""
    resource: str | None = None
    """What it is about, where the path does not say it."""
    detail: dict[str, Any] = field(default_factory=dict)


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: Litestar, metrics: Metrics, record: Record, *, own_host: str, is_open: bool) -> None:
        self.app = app
        self._metrics = metrics
        self._record = record
        self._own_host = own_host
        self._is_open = is_open

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
        token = correlation_id.set(request_id)
        notes = Notes()
        scope.setdefault("state", {})[NOTES] = notes
        outgoing = _Outgoing(send, request_id)
        began = perf_counter()
        try:
            self._check(scope, headers)
            await self.app(scope, receive, outgoing)
        except RatError as error:
            await _refuse(error, scope, outgoing)
        finally:
            self._count(scope, outgoing.status, perf_counter() - began)
            await self._audit(scope, notes, outgoing.status)
            correlation_id.reset(token)

    def _check(self, scope: HTTPScope, headers: Mapping[str, str]) -> None:
        """Refuse what a foreign web page makes a browser send: nobody needs a token here, so that is all there is."""
        if not self._is_open:
            return
        host = headers.get("host", "")
        if _LOOPBACK.fullmatch(_name(self._own_host)) and not _LOOPBACK.fullmatch(_name(host)):
            raise Forbidden(f"the host {host!r} is not this machine: use localhost, or a token")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Forbidden(f"requests from pages of {origin!r} are not answered without a token")
        if scope["method"] not in _READING and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Forbidden("requests from pages of other sites are not answered without a token")

    def _count(self, scope: HTTPScope, status: int, seconds: float) -> None:
        route = scope.get("path_template") or "none"
        self._metrics.count(scope["method"], str(route), status, seconds)

    async def _audit(self, scope: HTTPScope, notes: Notes, status: int) -> None:
        handler = scope.get("route_handler")
        action = handler.opt.get("audit") if handler is not None else None
        if action is None:
            return
        client = scope.get("client")
        path = "/".join(str(part) for part in scope.get("path_params", {}).values())
        event = AuditRecorded(
            user_id=notes.caller,
            action=action,
            resource=_CONTROL.sub("\N{REPLACEMENT CHARACTER}", (notes.resource or path).lstrip("/"))[:500],
            detail={**notes.detail, "status": status, "request_id": correlation_id.get()},
            outcome="success" if 0 < status < 400 else "failure",
            ip=client[0] if client else None,
        )
        try:
            await self._record(event)
        except Unavailable as error:
            log.warning("audit is lost", error=error.message, **event.model_dump(mode="json"))


class _Outgoing:
    """Sends an answer with the request's id on it, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._request_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)


async def _refuse(error: RatError, scope: HTTPScope, send: Callable[[Any], Awaitable[None]]) -> None:
    status = STATUS[as_error(error).code]
    body = json_bytes(problem(error, status, scope["path"]))
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _name(host: str) -> str:
    """The host without its port."""
    if host.count(":") > 1 and not host.startswith("["):
        return f"[{host}]"
    return re.sub(r":\d+$", "", host).lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return _LOOPBACK.fullmatch(_name(host)) is not None
