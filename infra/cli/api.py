"""The platform's HTTP API, as the commands use it."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from infra.cli.failure import ExitCode, Failure
from infra.connection import FILE_NAME, Connection
from shared.lines import Lines

_EXIT_CODES: Final = {"NOT_FOUND": ExitCode.NOT_FOUND, "UNAVAILABLE": ExitCode.UNREACHABLE}
_PAGE: Final = 200
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_RECONNECT_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 120.0
"""The platform itself gives up a query, or a preview, before."""


@dataclass(frozen=True)
class Sent:
    """One event of a stream that the server sends."""

    name: str
    data: Any


def read_connection(directory: Path) -> Connection:
    """The platform that runs on a data directory; `Failure` if none does."""
    path = directory / FILE_NAME
    try:
        connection = Connection.model_validate_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"no platform is ready on {directory}; start one with `rat up`, or say where one is with --url",
            ExitCode.UNREACHABLE,
        ) from None
    except (OSError, ValidationError) as error:
        raise Failure(f"{path} cannot be read: {error}", ExitCode.UNREACHABLE) from error
    if not _is_alive(connection.pid):
        raise Failure(
            f"the platform on {directory} is gone: process {connection.pid} does not exist; start it with `rat up`",
            ExitCode.UNREACHABLE,
        )
    return connection


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is somebody else's
    return True


class Api:
    """A client of one platform. What the platform refuses is raised as `Failure`, in its own words."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url.rstrip("/")
        host = urlsplit(self.url).hostname
        if urlsplit(self.url).scheme not in ("http", "https") or not host:
            raise Failure(f"{url!r} is no address of a platform, as http://127.0.0.1:8080", ExitCode.USAGE)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Failure("RAT_TOKEN holds what no token has: others than printable ASCII characters", ExitCode.USAGE)
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=5),
            # No proxy stands between a machine and itself.
            trust_env=host not in _LOOPBACK,
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """GET below `/api/v1`; what is None is not asked for."""
        return self._ask("GET", path, params=_given(parameters)).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST below `/api/v1`."""
        answer = self._ask("POST", path, json=dict(body or {}))
        return answer.json() if answer.content else None

    def post_patiently(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST below `/api/v1` what may take any time."""
        return self._ask("POST", path, json=dict(body), timeout=httpx.Timeout(None, connect=5)).json()

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT below `/api/v1`."""
        answer = self._ask("PUT", path, json=dict(body))
        return answer.json() if answer.content else None

    def delete(self, path: str) -> None:
        """DELETE below `/api/v1`."""
        self._ask("DELETE", path)

    def upload(self, path: str, filename: str, content: Any) -> Any:
        """POST a file as multipart, streamed: `content` is open for reading bytes."""
        return self._ask(
            "POST", path, files={"file": (filename, content)}, timeout=httpx.Timeout(None, connect=5)
        ).json()

    def entries(self, path: str, plural: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """All entries of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, limit=_PAGE, cursor=cursor, **parameters)
            yield from page[plural]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def health(self) -> dict[str, Any]:
        """What the platform depends on, be it up or down."""
        with _reachable(self.url):
            answer = self._client.get("/health/ready")
        if answer.status_code not in (200, 503):
            raise _refusal(answer)
        health: dict[str, Any] = answer.json()
        return health

    @contextmanager
    def streamed(self, path: str, body: Mapping[str, Any], *, accept: str) -> Iterator[Iterator[bytes]]:
        """POST and read the answer piece by piece."""
        request = self._client.build_request("POST", f"/api/v1{path}", json=dict(body), headers={"Accept": accept})
        with _reachable(self.url):
            answer = self._client.send(request, stream=True)
            try:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                yield answer.iter_bytes()
            finally:
                answer.close()

    def events(self, path: str, *, is_last: Callable[[Sent], bool], **parameters: Any) -> Iterator[Sent]:
        """Hear what the server sends, up to the last event; a connection that is lost before is made again."""
        last_id: str | None = None
        lost_at: float | None = None
        while True:
            try:
                for event_id, event in self._hear(path, last_id, parameters):
                    last_id, lost_at = event_id or last_id, None
                    yield event
                    if is_last(event):
                        return
            except httpx.TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_SECONDS:
                    raise Failure(f"{self.url} cannot be reached: {error}", ExitCode.UNREACHABLE) from error
            time.sleep(0.5)

    def _hear(self, path: str, last_id: str | None, parameters: Mapping[str, Any]) -> Iterator[tuple[str | None, Sent]]:
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(70, connect=5)
        with self._client.stream(
            "GET", f"/api/v1{path}", headers=headers, params=_given(parameters), timeout=timeout
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            text = Lines()
            yield from _parsed(line for piece in answer.iter_bytes() for line in text.cut(piece))

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        with _reachable(self.url):
            answer = self._client.request(method, f"/api/v1{path}", **request)
        if not answer.is_success:
            raise _refusal(answer)
        return answer


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _parsed(lines: Iterator[str]) -> Iterator[tuple[str | None, Sent]]:
    """The events of a stream (HTML standard, Server-sent events), with their ids."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield fields.get("id"), Sent(fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            value = f"{fields['data']}\n{value}"
        fields[name] = value


@contextmanager
def _reachable(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise Failure(f"{url} did not answer in time", ExitCode.UNREACHABLE) from error
    except httpx.TransportError as error:
        raise Failure(f"no platform answers at {url}: {error}", ExitCode.UNREACHABLE) from error


def _refusal(answer: httpx.Response) -> Failure:
    """What the platform says in `application/problem+json`."""
    try:
        problem = answer.json()
        error = problem["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return Failure(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300].strip()}")
    standard = {"type", "title", "status", "detail", "instance", "error"}
    details = {name: value for name, value in problem.items() if name not in standard}
    return Failure(message, _EXIT_CODES.get(code, ExitCode.FAILED), code=code, details=details)
