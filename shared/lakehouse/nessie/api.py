"""Nessie's REST API, version 2: requests with a role's token, all pages of a list, and what its refusals mean."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import aiohttp
from yarl import URL

from shared.errors import Forbidden, Invalid, Unavailable
from shared.tls import trusting

Json: TypeAlias = dict[str, Any]

_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)


class Refused(Exception):
    """Nessie answered that it did not do what it was asked for, and why."""

    def __init__(self, status: int, answer: Json) -> None:
        self.status = status
        self.code: str = answer.get("errorCode", "")
        self.message: str = answer.get("message", "")
        super().__init__(f"{status} {self.code}: {self.message}")

    @property
    def is_missing_reference(self) -> bool:
        """Whether there is no branch or no commit of that name."""
        return self.status == 404 and self.code == "REFERENCE_NOT_FOUND"


class NessieApi:
    """Requests under `/api/v2`.

    `Unavailable` when there is no answer, or one that leaves open what was done (5xx); `Forbidden` when the role may
    not; `Refused` for every other refusal.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, page_size: int) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/api/v2"
        self._page_size = page_size

    async def get(self, path: str, **query: str) -> Json:
        """Read something."""
        return await self.ask("GET", path, query=query)

    async def pages(self, path: str, of: str, **query: str) -> AsyncIterator[list[Json]]:
        """Read a list page by page: the items, which are called `of` in each."""
        query = query | {"max-records": str(self._page_size)}
        while True:
            page = await self.get(path, **query)
            yield page[of]
            if not page.get("hasMore"):
                return
            query["page-token"] = page["token"]

    async def ask(
        self, method: str, path: str, *, token: str | None = None, body: Json | None = None, query: Mapping[str, str]
    ) -> Json:
        """Send a request and read its answer; `token` is another one than the session's."""
        url = URL(self._url + path, encoded=True).update_query(query)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._session.request(method, url, json=body, headers=headers) as response:
                text = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"Nessie cannot be reached ({method} {path}): {error or type(error).__name__}") from error
        answer = _parsed(text)
        if status < 400:
            return answer
        if status in (401, 403):
            raise Forbidden(f"this role may not do that to the lakehouse: {answer.get('message') or 'token refused'}")
        if status >= 500 or status in (408, 429):
            raise Unavailable(f"Nessie failed ({method} {path}): {status} {answer.get('message', text[:200])}")
        raise Refused(status, answer)

    async def commit(
        self,
        branch: str,
        at: str,
        message: str,
        operations: Sequence[Json],
        *,
        properties: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        """Commit operations to a branch that is at this commit, or has not changed their keys since."""
        meta = {"message": message, "properties": dict(properties or {})}
        body = {"commitMeta": meta, "operations": list(operations)}
        await self.ask("POST", f"/trees/{segment(branch, at=at)}/history/commit", token=token, body=body, query={})


def session(token: str, *, ca_file: str | None = None) -> aiohttp.ClientSession:
    """What the connections of one role are made with; over TLS, those of this file are trusted, or the system's."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"},
        timeout=_TIMEOUT,
        connector=aiohttp.TCPConnector(ssl=trusting(ca_file)),
    )


def segment(reference: str, *, at: str = "") -> str:
    """A reference as part of a path, at one of its commits if that is given."""
    return quote(reference, safe="") + (f"@{at}" if at else "")


def literal(text: str) -> str:
    """A string in an expression of a filter."""
    if not text.isprintable() or "'" in text or "\\" in text:
        raise Invalid(f"{text!r} cannot be looked for")
    return f"'{text}'"


def time_of(commit: Json) -> datetime:
    """When a commit was made, by what is said of it."""
    return datetime.fromisoformat(commit["commitTime"])


def _parsed(text: str) -> Json:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
