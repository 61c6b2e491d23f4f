"""What flows through the gateway: files on their way to zones, logs and events as they happen."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from infra.stacks.stack import Stack
from services.gateway.service import serve
from tests.client import Client, problem, unique
from tests.waiting import eventually

# Files


async def test_a_large_file_goes_through_to_its_zone(user: Client, http: httpx.AsyncClient) -> None:
    zone = await user.zone(unique("large"))
    content = b"id,amount\n" + b"1,2\n" * 3_000_000

    answer = await http.post(f"/landing-zones/default/{zone}/files", files={"file": ("big.csv", content, "text/csv")})

    assert answer.status_code == 201
    file = answer.json()
    assert list(file) == [
        "id",
        "zone_id",
        "filename",
        "s3_path",
        "size_bytes",
        "content_type",
        "etag",
        "state",
        "reason",
        "processed_by",
        "uploaded_by",
        "uploaded_at",
    ]
    assert (file["filename"], file["size_bytes"], file["state"]) == ("big.csv", len(content), "landed")
    assert file["content_type"] == "text/csv"
    assert await user.bucket.get(file["s3_path"]) == content
    listed = await user.get(f"/landing-zones/default/{zone}/files", state="landed")
    assert [one["id"] for one in listed["files"]] == [file["id"]]
    assert (await http.delete(f"/landing-zones/default/{zone}/files/{file['id']}")).status_code == 204


@pytest.mark.parametrize("filename", ["../escape.csv", "a?b.csv", "_samples/../../x"])
async def test_a_file_whose_name_cannot_be_is_refused(user: Client, http: httpx.AsyncClient, filename: str) -> None:
    zone = await user.zone(unique("names"))

    answer = await http.post(f"/landing-zones/default/{zone}/files", files={"file": (filename, b"x")})

    problem(answer, 400, "INVALID_ARGUMENT")


async def test_a_form_without_a_file_is_refused(user: Client, http: httpx.AsyncClient) -> None:
    zone = await user.zone(unique("forms"))

    for form in ({"files": {"other": ("a.csv", b"x")}}, {"data": {"file": "text"}}, {"content": b"nothing"}):
        problem(await http.post(f"/landing-zones/default/{zone}/files", **form), 400, "INVALID_ARGUMENT")


async def test_a_file_can_be_put_straight_at_a_presigned_address(user: Client, http: httpx.AsyncClient) -> None:
    zone = await user.zone(unique("direct"))

    address = await user.post(f"/landing-zones/default/{zone}/uploads", {"filename": "a.csv", "size_bytes": 3})
    async with httpx.AsyncClient() as outside:
        put = await outside.put(address["url"], content=b"id\n")

    async def landed() -> bool:
        found = await user.get(f"/landing-zones/default/{zone}/files")
        return [one["filename"] for one in found["files"]] == ["a.csv"]

    assert put.is_success
    assert await eventually(landed)


# Streams


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Id, name and data of each event."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


async def test_the_log_of_a_run_is_followed_to_its_end_and_resumed(user: Client, http: httpx.AsyncClient) -> None:
    pipeline = await user.pipeline(
        f"default.bronze.{unique('followed')}", "select 1 as id", ids="select 1 from {{ this }} where id is null"
    )
    run_id = await user.run(pipeline)
    path, headers = f"/runs/{run_id}/logs", {"Accept": "text/event-stream"}

    async with http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        live = [event async for event in events(answer)]
    async with http.stream("GET", path, headers=headers) as answer:
        after = [event async for event in events(answer)]
    first = next(event_id for event_id, name, _ in after if name == "log")
    async with http.stream("GET", path, headers=headers | {"Last-Event-ID": first}) as answer:
        resumed = [event async for event in events(answer)]

    assert live[-1][1:] == ("status", live[-1][2])
    assert live[-1][2]["status"] == "success"
    phases = [data["name"] for _, name, data in live if name == "phase"]
    assert phases == ["branch", "compile", "write", "quality", "merge"]
    messages = [data["message"] for _, name, data in after if name == "log"]
    assert messages
    assert [data["message"] for _, name, data in live if name == "log"] == messages
    assert [data["message"] for _, name, data in resumed if name == "log"] == messages[1:]
    assert resumed[-1][2]["status"] == "success"
    whole = await user.get(path)
    assert [line["message"] for line in whole["logs"]] == messages
    assert whole["logs"][0].keys() == {"timestamp", "level", "message"}
    assert whole["status"] == "success"


async def test_what_happens_is_followed_by_type_and_namespace(user: Client, http: httpx.AsyncClient) -> None:
    namespace = unique("seen")
    await user.post("/namespaces", {"name": namespace})
    ours = await user.pipeline(f"{namespace}.bronze.mine", "select 1 as id")
    other = await user.pipeline(f"default.bronze.{unique('unseen')}", "select 1 as id")
    wanted = {"types": "run.finished,table.changed", "namespace": namespace}

    async with http.stream("GET", "/events", params=wanted) as answer:
        listening = events(answer)
        await user.succeeded(await user.run(other))
        run_id = await user.run(ours)
        seen = [await asyncio.wait_for(anext(listening), 10) for _ in range(2)]
    async with http.stream("GET", "/events", params=wanted, headers={"Last-Event-ID": seen[0][0]}) as answer:
        again = await asyncio.wait_for(anext(events(answer)), 10)

    assert {name for _, name, _ in seen} == {"run.finished", "table.changed"}
    assert {data["run_id"] for _, _, data in seen} == {run_id}
    assert again == seen[1]


async def test_a_stream_ends_when_the_gateway_stops(stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        url = await exits.enter_async_context(serve(stack.settings))
        http = httpx.AsyncClient(base_url=f"{url}/api/v1")
        async with http, http.stream("GET", "/events") as answer:
            lines = answer.aiter_lines()
            await anext(lines)

            await exits.aclose()

            assert [line async for line in lines if line] == []
