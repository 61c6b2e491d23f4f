"""A user of a platform: HTTP for all that is asked, S3 for files, and nothing that is not public."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from infra.cli.api import Api
from infra.cli.folder import read_folder
from infra.cli.push import Pushed, ensure_namespaces, publish, push_draft
from infra.connection import Connection
from infra.demo.flights import File
from shared.errors import Internal, Unavailable
from shared.object_store import ObjectStore, object_store
from shared.settings import S3Key, Settings

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class User:
    """Somebody with a namespace on a platform, at the address where its gateway answers."""

    def __init__(
        self, url: str, token: str | None, http: httpx.AsyncClient, bucket: ObjectStore | None, namespace: str
    ) -> None:
        self.namespace = namespace
        self.http = http
        self._url = url
        self._token = token
        self._bucket = bucket

    @property
    def reaches_bucket(self) -> bool:
        """Whether files can be dropped into the bucket from here."""
        return self._bucket is not None

    async def get(self, path: str, **parameters: Any) -> Any:
        """GET below `/api/v1`."""
        return _checked(await self._ask("GET", path, params=parameters)).json()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST below `/api/v1`."""
        return _checked(await self._ask("POST", path, json=body)).json()

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query; tables are `layer.name`."""
        answer = await self.post("/query", {"sql": sql, "namespace": self.namespace})
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    async def number(self, sql: str) -> int:
        """The one number that a query gives."""
        [row] = await self.query(sql)
        [value] = row.values()
        return int(value)

    async def push(self, folder: Path) -> list[Pushed]:
        """Bring a folder of pipelines and publish them, as `rat push --publish` does."""
        return await asyncio.to_thread(self._push, folder)

    def _push(self, folder: Path) -> list[Pushed]:
        api = Api(self._url, self._token)
        pipelines = read_folder(folder, self.namespace)
        ensure_namespaces(api, pipelines)
        return [publish(api, pipeline, push_draft(api, pipeline, prune=False)) for pipeline in pipelines]

    async def trigger(self, woken: str, kind: str, cooldown_seconds: int = 0, **config: str) -> None:
        """Let a pipeline, `layer.name`, be run by what happens."""
        path = f"/pipelines/{self.namespace}/{woken.replace('.', '/')}/triggers"
        body = {"type": kind, "config": {"namespace": self.namespace, **config}, "cooldown_seconds": cooldown_seconds}
        await self.post(path, body)

    async def upload(self, file: File) -> None:
        """Deliver a file through HTTP."""
        path = f"/landing-zones/{self.namespace}/{file.zone}/files"
        _checked(await self._ask("POST", path, files={"file": (file.name, file.content, "text/csv")}))

    async def drop(self, file: File) -> None:
        """Deliver a file straight into the bucket, where that can be reached; else like any other."""
        if self._bucket is None:
            await self.upload(file)
            return
        await self._bucket.put(f"{self.namespace}/landing/{file.zone}/{file.name}", file.content)

    async def leave(self) -> None:
        """Remove the namespace, if there is one, with its pipelines, triggers and zones. Its tables stay."""
        answer = await self._ask("DELETE", f"/namespaces/{self.namespace}", params={"force": True})
        if answer.status_code != httpx.codes.NOT_FOUND:
            _checked(answer)

    async def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Unavailable(f"{method} {path} was not answered: {error!r}") from error


@asynccontextmanager
async def user_of(connection: Connection, namespace: str) -> AsyncIterator[User]:
    """Connect to a platform as somebody outside, who has its connection."""
    key = S3Key(access_key_id=connection.s3.access_key_id, secret_access_key=SecretStr(connection.s3.secret_access_key))
    store = Settings(
        s3_endpoint=connection.s3.endpoint,
        s3_region=connection.s3.region,
        s3_bucket=connection.s3.bucket,
        s3_keys={"uploader": key},
    )
    async with _http(connection.url, connection.token) as http, object_store(store, "uploader") as bucket:
        yield User(connection.url, connection.token, http, bucket, namespace)


@asynccontextmanager
async def user_at(url: str, token: str | None, namespace: str) -> AsyncIterator[User]:
    """Connect to a platform as somebody who knows nothing but the address of its gateway."""
    async with _http(url, token) as http:
        yield User(url, token, http, None, namespace)


def _http(url: str, token: str | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"{url.rstrip('/')}/api/v1",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=60,
        # No proxy stands between a machine and itself.
        trust_env=urlsplit(url).hostname not in _LOOPBACK,
    )


def _checked(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise Internal(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text}"
        )
    return answer
