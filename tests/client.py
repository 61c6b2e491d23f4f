"""What a user does through HTTP and S3, for the tests of the whole platform."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx

from shared.object_store import ObjectStore, object_store
from shared.settings import Settings
from tests.waiting import ASKING_SECONDS, eventually

TERMINAL = ("success", "failed", "cancelled")


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
"""How the API writes times."""


def unique(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}_{uuid4().hex[:8]}"


class Client:
    """A user of the API, who also has the uploader's key for the bucket."""

    def __init__(self, http: httpx.AsyncClient, bucket: ObjectStore) -> None:
        self.http = http
        self.bucket = bucket

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.http.get(path, params=params)
        assert answer.is_success, answer.text
        return answer.json()

    async def post(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Any:
        answer = await self.http.post(path, json=body or {}, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def put_file(self, path: str, content: str) -> None:
        answer = await self.http.put(f"/files/{path}", json={"content": content})
        assert answer.is_success, answer.text

    async def zone(self, name: str, namespace: str = "default") -> str:
        await self.post("/landing-zones", {"namespace": namespace, "name": name})
        return name

    async def pipeline(self, qualified: str, sql: str, *, publish: bool = True, **files: str) -> str:
        """Make a pipeline with this SQL; `files` are `config` (YAML) and quality tests by name."""
        namespace, layer, name = qualified.split(".")
        await self.post("/pipelines", {"namespace": namespace, "layer": layer, "name": name, "type": "sql"})
        folder = f"{namespace}/pipelines/{layer}/{name}"
        await self.put_file(f"{folder}/pipeline.sql", sql)
        await self.put_file(f"{folder}/config.yaml", files.pop("config", "merge_strategy: full_refresh\n"))
        for test, text in files.items():
            await self.put_file(f"{folder}/tests/quality/{test}.sql", text)
        if publish:
            await self.post(f"/pipelines/{namespace}/{layer}/{name}/publish")
        return qualified

    async def trigger(self, pipeline: str, kind: str, config: Mapping[str, Any], cooldown_seconds: int = 0) -> str:
        made = await self.post(
            f"/pipelines/{pipeline.replace('.', '/')}/triggers",
            {"type": kind, "config": config, "cooldown_seconds": cooldown_seconds},
        )
        return str(made["id"])

    async def run(self, pipeline: str, **body: Any) -> str:
        namespace, layer, name = pipeline.split(".")
        made = await self.post("/runs", {"namespace": namespace, "layer": layer, "pipeline": name, **body})
        return str(made["run_id"])

    async def ended(self, run_id: str, within: float = 60) -> dict[str, Any]:
        async def terminal() -> dict[str, Any] | None:
            run: dict[str, Any] = await self.get(f"/runs/{run_id}")
            return run if run["status"] in TERMINAL else None

        return await eventually(terminal, within=within, pause=ASKING_SECONDS)

    async def succeeded(self, run_id: str, within: float = 60) -> dict[str, Any]:
        run = await self.ended(run_id, within)
        assert run["status"] == "success", f"{run['error_kind']}: {run['error']}"
        return run

    async def runs(self, pipeline: str) -> list[dict[str, Any]]:
        """All runs of a pipeline, the oldest first."""
        namespace, layer, name = pipeline.split(".")
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(
                "/runs", namespace=namespace, layer=layer, pipeline=name, limit=200, sort="created_at", **cursor
            )
            found += page["runs"]
            if not page.get("next_cursor"):
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def query(self, sql: str) -> list[dict[str, Any]]:
        answer: dict[str, Any] = await self.post("/query", {"sql": sql})
        return list(answer["rows"])

    async def upload(self, zone: str, filename: str, content: str, namespace: str = "default") -> None:
        """Through the gateway."""
        answer = await self.http.post(
            f"/landing-zones/{namespace}/{zone}/files", files={"file": (filename, content.encode(), "text/csv")}
        )
        assert answer.status_code == 201, answer.text

    async def drop(self, zone: str, filename: str, content: str, namespace: str = "default") -> None:
        """Straight into the bucket."""
        await self.bucket.put(f"{namespace}/landing/{zone}/{filename}", content.encode())

    async def dead_letters(self) -> list[dict[str, Any]]:
        answer = await self.get("/dead-letters")
        return list(answer["dead_letters"])


@asynccontextmanager
async def client(settings: Settings, url: str) -> AsyncIterator[Client]:
    async with (
        httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as http,
        object_store(settings, "uploader") as bucket,
    ):
        yield Client(http, bucket)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that tells of an error in the right shape."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["error"].keys() == {"code", "type", "message"}
    assert body["status"] == status
    return body
