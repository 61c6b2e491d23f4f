"""What somebody asked for through the API ends when nobody waits for it any more."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from infra.stacks.stack import Stack
from services.gateway.service import serve as serve_gateway
from services.query.service import serve as serve_query
from services.runner.service import serve as serve_runner
from tests.running import Surroundings, surroundings

SLOW = "select count(*) as n from range(1000000000) a, range(1000) b where hash(a.range + b.range) % 7 = 1"


@pytest.fixture(scope="module")
async def around(stack: Stack) -> AsyncIterator[Surroundings]:
    """One place for each kind of work, which is free only once what has it was broken off.

    Who waits for it gives up after 20 or 30 s, and what has it may go on for 60.
    """
    alone = stack.settings.model_copy(update={"runner_workers": 1, "query_workers": 1, "gateway_port": 0})
    async with AsyncExitStack() as exits:
        around = await exits.enter_async_context(surroundings(alone))
        await exits.enter_async_context(serve_runner(alone))
        await exits.enter_async_context(serve_query(alone))
        yield around


@pytest.fixture(scope="module")
async def http(around: Surroundings) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve_gateway(around.settings) as url,
        httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as http,
    ):
        yield http


async def leave(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """Ask for something, and go away while it is worked on."""
    with pytest.raises(httpx.ReadTimeout):
        await http.post(path, json=body, timeout=3)


@pytest.mark.parametrize("look", ["preview", "tests/run"])
async def test_a_look_at_code_is_stopped_when_its_client_leaves(
    around: Surroundings, http: httpx.AsyncClient, look: str
) -> None:
    pipeline = await around.draft({"pipeline.sql": SLOW, "tests/quality/slow.sql": SLOW})
    path = f"/pipelines/{pipeline.replace('.', '/')}"

    await leave(http, f"{path}/{look}", {})

    seen = await http.post(f"{path}/preview", json={"code": "select 1 as one"})
    assert seen.status_code == 200, seen.text
    assert seen.json()["rows"] == [{"one": 1}]


async def test_a_query_is_stopped_when_its_client_leaves(http: httpx.AsyncClient) -> None:
    await leave(http, "/query", {"sql": SLOW})

    found = await http.post("/query", json={"sql": "select 1 as one"})
    assert found.status_code == 200, found.text
    assert found.json()["rows"] == [{"one": 1}]
