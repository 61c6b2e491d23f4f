"""The HTTP API in front of all services: shapes, errors, ids, the audit, and who may call."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from nats.aio.msg import Msg

from infra.stacks.stack import Stack
from services.gateway.service import serve
from services.gateway.tokens import Scope, tokens
from shared.errors import Conflict, Invalid
from tests.client import TIME, Client, problem, unique
from tests.outside import nats_client
from tests.waiting import eventually

CARRIERS = ("run.queued", "run.started", "run.finished", "run.requested", "trigger.decided")
NOBODYS = UUID(int=0)
"""The id of nothing that there is."""


# The shape of things


async def test_health_says_what_is_up(platform: tuple[Stack, str]) -> None:
    _, url = platform
    async with httpx.AsyncClient(base_url=url) as http:
        alive = await http.get("/health")
        live = await http.get("/health/live")
        ready = await http.get("/health/ready")

    assert alive.json() == live.json() == {"status": "ok", "version": "0.1.0"}
    assert ready.status_code == 200, ready.text
    dependencies = ready.json()["dependencies"]
    assert dependencies.keys() == {
        *("nats", "catalog", "ingest", "query", "runner", "scheduler", "trigger"),
        *("catalog/postgres", "ingest/postgres", "scheduler/postgres", "trigger/postgres"),
        *("catalog/object_store", "ingest/object_store", "query/object_store", "runner/object_store"),
        *("query/lakehouse", "runner/lakehouse"),
    }
    assert all(one["state"] == "up" and one["latency_ms"] >= 0 for one in dependencies.values())


async def test_health_is_503_while_a_service_is_away(stack: Stack) -> None:
    async with serve(stack.settings) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/health/ready")
        refused = await http.get("/api/v1/pipelines")

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["trigger"]["state"] == "down"
    problem(refused, 503, "UNAVAILABLE")


async def test_metrics_count_requests_by_their_route(http: httpx.AsyncClient, platform: tuple[Stack, str]) -> None:
    await http.get("/pipelines/default/bronze/nope")
    await http.get("/nowhere")

    async with httpx.AsyncClient(base_url=platform[1], timeout=60) as root:
        text = (await root.get("/metrics")).text

    route = "/api/v1/pipelines/{namespace}/{layer}/{name}"
    assert f'rat_http_requests_total{{method="GET",route="{route}",status="404"}} 1' in text
    assert 'route="none",status="404"' in text
    assert "rat_dead_letters 0" in text
    assert 'rat_consumer_pending{stream="EVENTS",consumer="catalog-run-requested"}' in text


async def test_the_api_is_documented_as_openapi_and_on_a_page_that_needs_no_network(
    platform: tuple[Stack, str],
) -> None:
    async with httpx.AsyncClient(base_url=platform[1]) as http:
        page = await http.get("/schema")
        description = (await http.get("/schema/openapi.json")).json()

    assert description["openapi"].startswith("3.1")
    refusal = description["paths"]["/api/v1/namespaces"]["post"]["responses"]["default"]
    assert refusal["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "error" in description["components"]["schemas"]["Problem"]["required"]
    assert "/api/v1/runs/{run_id}/logs" in description["paths"]
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/v1/landing-zones" in page.text
    assert not re.findall(r"(?:src|href)=[\"']?https?://", page.text)


async def test_features(user: Client) -> None:
    assert await user.get("/features") == {
        "edition": "community",
        "namespaces": True,
        "multi_user": False,
        "landing_zones": True,
        "plugins": {},
    }


async def test_namespaces_are_made_listed_changed_and_deleted(user: Client, http: httpx.AsyncClient) -> None:
    name = unique("ns")

    made = await http.post("/namespaces", json={"name": name, "description": "mine"})
    again = await http.post("/namespaces", json={"name": name})
    changed = await http.put(f"/namespaces/{name}", json={"description": "ours"})
    listed = await user.get("/namespaces")
    deleted = await http.delete(f"/namespaces/{name}")

    assert made.status_code == 201
    assert made.json() == {"name": name, "description": "mine", "created_by": None} | {
        "created_at": made.json()["created_at"]
    }
    assert TIME.fullmatch(made.json()["created_at"])
    problem(again, 409, "ALREADY_EXISTS")
    assert (changed.status_code, changed.content) == (204, b"")
    assert {one["name"]: one["description"] for one in listed["namespaces"]}[name] == "ours"
    assert "default" in {one["name"] for one in listed["namespaces"]}
    assert deleted.status_code == 204
    problem(await http.delete("/namespaces/default"), 403, "FORBIDDEN")


async def test_lists_come_in_pages(user: Client, http: httpx.AsyncClient) -> None:
    namespace = unique("paged")
    await user.post("/namespaces", {"name": namespace})
    for number in range(5):
        await user.zone(f"z{number}", namespace)

    first = await user.get("/landing-zones", namespace=namespace, limit=2)
    second = await user.get("/landing-zones", namespace=namespace, limit=2, cursor=first["next_cursor"])
    last = await user.get("/landing-zones", namespace=namespace, limit=2, offset=4)

    assert [zone["name"] for zone in [*first["zones"], *second["zones"], *last["zones"]]] == [
        "z0",
        "z1",
        "z2",
        "z3",
        "z4",
    ]
    assert first["total"] == 5
    assert "next_cursor" not in last
    for bad in ({"limit": 0}, {"limit": 201}, {"limit": "x"}, {"offset": -1}, {"cursor": "nonsense"}):
        problem(await http.get("/landing-zones", params=bad), 400, "INVALID_ARGUMENT")


def nested(depth: int) -> Any:
    """A value so deep in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "says"),
    [
        ("GET", "/nowhere", None, 404, "NOT_FOUND", "path"),
        ("GET", "/runs/not-a-uuid", None, 404, "NOT_FOUND", ""),
        ("GET", f"/runs/{NOBODYS}", None, 404, "NOT_FOUND", "run"),
        ("GET", "/pipelines/default/bronze/nope", None, 404, "NOT_FOUND", "nope"),
        ("GET", "/pipelines/default/copper/nope", None, 400, "INVALID_ARGUMENT", "pipeline"),
        ("GET", "/pipelines?layer=copper", None, 400, "INVALID_ARGUMENT", "layer"),
        ("GET", "/runs?status=odd", None, 400, "INVALID_ARGUMENT", "status"),
        ("GET", "/runs?started_after=yesterday", None, 400, "INVALID_ARGUMENT", "started_after"),
        ("GET", "/tables/default/bronze/nope", None, 404, "NOT_FOUND", "nope"),
        ("GET", "/tables/default/bronze/nope/preview", None, 404, "NOT_FOUND", "nope"),
        ("GET", "/events?types=nope.nope", None, 400, "INVALID_ARGUMENT", "nope.nope"),
        ("POST", "/namespaces", {"name": "Not A Name"}, 400, "INVALID_ARGUMENT", "name"),
        ("POST", "/namespaces", {}, 400, "INVALID_ARGUMENT", "name"),
        ("POST", "/namespaces", [], 400, "INVALID_ARGUMENT", "dictionary"),
        ("POST", "/namespaces", "{nope", 400, "INVALID_ARGUMENT", "JSON"),
        ("POST", "/namespaces", "", 400, "INVALID_ARGUMENT", "JSON"),
        ("POST", "/namespaces", "[" * 100_000, 400, "INVALID_ARGUMENT", "nested"),
        (
            "POST",
            "/runs",
            {"namespace": "default", "layer": "bronze", "pipeline": "nope", "parameters": {"deep": nested(400)}},
            400,
            "INVALID_ARGUMENT",
            "nested",
        ),
        ("POST", "/namespaces", '{"name": "a\\u0000b"}', 400, "INVALID_ARGUMENT", "name"),
        ("POST", "/namespaces", {"name": "nul", "description": "a\0b"}, 400, "INVALID_ARGUMENT", "description"),
        ("DELETE", "/namespaces", None, 405, "INVALID_ARGUMENT", ""),
        ("POST", "/pipelines", {"namespace": "nope", "layer": "bronze", "name": "x"}, 404, "NOT_FOUND", "nope"),
        ("POST", "/pipelines", {"namespace": "default", "layer": "x", "name": "x"}, 400, "INVALID_ARGUMENT", "layer"),
        ("POST", "/runs", {"namespace": "default", "layer": "bronze", "pipeline": "nope"}, 404, "NOT_FOUND", "nope"),
        ("POST", f"/runs/{NOBODYS}/cancel", None, 404, "NOT_FOUND", ""),
        ("POST", "/schedules", {"cron": "x"}, 400, "INVALID_ARGUMENT", "pipeline"),
        ("PUT", "/files/default/landing/x.csv", {"content": "x"}, 400, "INVALID_ARGUMENT", ""),
        ("PUT", "/files/default/pipelines/bronze/x/%2e%2e/y", {"content": "x"}, 400, "INVALID_ARGUMENT", ""),
        ("PUT", "/files/default/pipelines/bronze/x/a%5Cb", {"content": "x"}, 400, "INVALID_ARGUMENT", ""),
        ("GET", "/files/default/pipelines/bronze/x/a%00b", None, 400, "INVALID_ARGUMENT", ""),
        ("PUT", "/files/default/pipelines/bronze/x/big", {"content": "x" * 300_000}, 400, "INVALID_ARGUMENT", "200"),
        ("PUT", "/files/default/pipelines/bronze/x/big", {"content": "x" * 3_000_000}, 413, "INVALID_ARGUMENT", ""),
        ("POST", "/query", {"sql": ""}, 400, "INVALID_ARGUMENT", "sql"),
        ("POST", "/query", {"sql": "select 1", "limit": -1}, 400, "INVALID_ARGUMENT", "limit"),
        ("POST", "/query", {"sql": "from bronze.x", "branch": "nope"}, 404, "NOT_FOUND", "nope"),
        ("POST", "/landing-zones", {"namespace": "default", "name": "Bad"}, 400, "INVALID_ARGUMENT", "not 'Bad'"),
        ("POST", "/landing-zones/default/nope/uploads", {"filename": "a"}, 404, "NOT_FOUND", "nope"),
        ("GET", "/dead-letters/99999", None, 404, "NOT_FOUND", ""),
    ],
)
async def test_a_clients_mistake_is_told_and_never_a_500(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int, code: str, says: str
) -> None:
    content = body if isinstance(body, str) else None if body is None else json.dumps(body)

    answer = await http.request(method, path, content=content)

    assert says in problem(answer, status, code)["detail"]


NASTY: tuple[Any, ...] = (
    "",
    "x" * 5000,
    "\0",
    "\ud7ff\U0001f400'\";--",
    "../..",
    "2026-01-01T00:00:00",
    -1,
    2**31,
    10**30,
    None,
    ["x"],
    {"x": {"y": [None, 2**70]}},
)


# What ends a test for its time may end whatever its loop does just then, such as a service's connection.
@pytest.mark.timeout(600)
async def test_nothing_that_a_client_sends_is_a_500(platform: tuple[Stack, str], user: Client) -> None:
    await user.zone("nasty")
    await user.pipeline("default.bronze.nasty", "select 1 as id")
    async with httpx.AsyncClient(base_url=platform[1], timeout=60) as root:
        description = (await root.get("/schema/openapi.json")).json()
        surprises: list[str] = []
        turns = asyncio.Semaphore(8)

        async def send(method: str, path: str, params: dict[str, str], body: Any) -> None:
            async with turns:
                content = None if body is None else json.dumps(body)
                answer = await root.request(method, path, params=params, content=content)
            if answer.status_code >= 500:
                surprises.append(f"{method} {path} {params} {str(body)[:100]}: {answer.text[:300]}")

        async with asyncio.TaskGroup() as tasks:
            for path, operations in description["paths"].items():
                if path == "/api/v1/events":
                    continue
                for method, operation in operations.items():
                    for request in nasty_requests(path, operation, description):
                        tasks.create_task(send(method.upper(), *request))

    assert not surprises, "\n".join(surprises[:20])


def nasty_requests(path: str, operation: Any, description: Any) -> Iterator[tuple[str, dict[str, str], Any]]:
    """A nasty value in each place of a request, while all others are good ones."""
    parameters = operation.get("parameters", [])
    good = {one["name"]: good_value(one["name"], one.get("schema", {})) for one in parameters}
    places = {one["name"]: one["in"] for one in parameters if one["in"] in ("path", "query")}

    def filled(values: dict[str, str]) -> str:
        names = {name: quote(values[name], safe="") for name in places if places[name] == "path"}
        return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path)

    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    shape = (
        description["components"]["schemas"].get(content["schema"].get("$ref", "").rpartition("/")[2])
        if content
        else {}
    )
    fields = {name: good_value(name, one) for name, one in (shape or {}).get("properties", {}).items()}
    required = {name: fields[name] for name in (shape or {}).get("required", [])}
    for name in places:
        for value in NASTY:
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) < 10_000 and (places[name] == "query" or text not in ("", "../..")):
                values = good | {name: text}
                yield filled(values), {name: text} if places[name] == "query" else {}, required or None
    for name in fields:
        for value in NASTY:
            yield filled(good), {}, required | {name: value}
    if content:
        for value in NASTY:
            yield filled(good), {}, value


def good_value(name: str, schema: Any) -> Any:
    if name.endswith("_id"):
        return str(uuid4())
    known = {"layer": "bronze", "version": "1", "letter_id": "7", "sql": "select 1", "cron": "@hourly", "config": {}}
    return known.get(name, "default" if name == "namespace" else "nasty")


async def test_a_request_id_is_taken_or_made(http: httpx.AsyncClient) -> None:
    given = uuid4().hex

    answer = await http.get("/features", headers={"X-Request-ID": given})
    made = await http.get("/features")
    odd = await http.get("/features", headers={"X-Request-ID": "no good\tone"})

    assert answer.headers["x-request-id"] == given
    assert len(made.headers["x-request-id"]) == 36
    assert odd.headers["x-request-id"] != "no good\tone"


async def test_a_request_id_is_carried_to_all_that_the_request_sets_off(
    platform: tuple[Stack, str], user: Client
) -> None:
    settings, given = platform[0].settings, f"request-{uuid4().hex}"
    source = await user.pipeline(f"default.bronze.{unique('source')}", "select 1 as id")
    _, layer, name = source.split(".")
    follower = await user.pipeline(f"default.silver.{name}", "select 2 as id")
    await user.trigger(follower, "pipeline_success", {"namespace": "default", "layer": layer, "pipeline": name})
    said: dict[tuple[str, str], str | None] = {}

    async def note(message: Msg) -> None:
        pipeline = json.loads(message.data).get("pipeline")
        said[message.subject, pipeline] = (message.headers or {}).get("correlation_id")

    subscriber = await nats_client(settings, "subscriber")
    try:
        for subject in CARRIERS:
            await subscriber.subscribe(subject, cb=note)
        await subscriber.flush()
        await user.post("/runs", {"namespace": "default", "layer": layer, "pipeline": name}, **{"X-Request-ID": given})

        await eventually(lambda: ("run.finished", follower) in said)
    finally:
        await subscriber.close()
    expected = {(subject, pipeline) for subject in CARRIERS[:3] for pipeline in (source, follower)}
    expected |= {("run.requested", follower), ("trigger.decided", follower)}
    assert {key: said.get(key) for key in expected} == dict.fromkeys(expected, given)


# What is said of requests


async def test_who_did_what_is_said_once_the_outcome_is_known(
    user: Client, http: httpx.AsyncClient, platform: tuple[Stack, str]
) -> None:
    settings = platform[0].settings
    connection = await nats_client(settings)
    heard = await connection.subscribe("audit.recorded")
    await connection.flush()
    name = unique("audited")

    await http.post("/namespaces", json={"name": name}, headers={"X-Request-ID": f"r-{name}"})
    await http.post("/namespaces", json={"name": name})
    said: list[dict[str, Any]] = []
    while len(said) < 2:
        one = json.loads((await heard.next_msg(timeout=60)).data)
        if one["resource"] == name:  # what others did may be said late
            said.append(one)
    await connection.close()

    said.sort(key=lambda one: int(one["detail"]["status"]))
    assert [(one["action"], one["resource"], one["outcome"]) for one in said] == [
        ("namespace.create", name, "success"),
        ("namespace.create", name, "failure"),
    ]
    assert said[0]["detail"] == {"status": 201, "request_id": f"r-{name}"}
    assert said[0]["ip"] == "127.0.0.1"

    async def listed() -> list[str] | None:
        found = await user.get("/audit", action="namespace.create", resource=name)
        return sorted(one["outcome"] for one in found["entries"]) if found["total"] == 2 else None

    assert await eventually(listed) == ["failure", "success"]


async def test_a_client_lets_go_of_an_idle_connection_before_the_gateway_does(http: httpx.AsyncClient) -> None:
    url = http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET /health/live HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
    await reader.readuntil(b"}")

    with pytest.raises(TimeoutError):
        # Its end would be read as nothing; clients, httpx among them, keep one for five seconds and more.
        await asyncio.wait_for(reader.read(1), timeout=7)

    writer.close()


# Who may call


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "localhost:8080", "Origin": "http://localhost:9999"}, 403),
    ],
)
async def test_an_open_gateway_answers_no_foreign_pages(
    http: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    answer = await http.get("/features", headers=headers)

    assert answer.status_code == status
    if status == 403:
        problem(answer, 403, "FORBIDDEN")


async def test_where_tokens_are_needed_only_they_open_and_only_what_they_may(platform: tuple[Stack, str]) -> None:
    settings = platform[0].settings.model_copy(update={"gateway_port": 0, "gateway_open": False})
    with pytest.raises(Invalid, match="no token"):
        async with serve(settings):
            pass
    async with tokens(settings) as known:
        reader = await known.create("reader", Scope.READ)
        writer = await known.create("writer", Scope.WRITE)
        async with serve(settings) as url, httpx.AsyncClient(base_url=url) as http:

            async def status(method: str, path: str, token: str | None, body: Any = None) -> int:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                return (await http.request(method, path, headers=headers, json=body)).status_code

            name = {"name": unique("scoped")}
            ready = await http.get("/health/ready")
            assert (ready.status_code, ready.json()["dependencies"]["gateway/postgres"]["state"]) == (200, "up")
            assert await status("GET", "/schema/openapi.json", None) == 200
            assert await status("GET", "/api/v1/pipelines", None) == 401
            assert await status("GET", "/api/v1/pipelines", "rat_guess") == 401
            assert await status("GET", "/metrics", None) == 401
            assert await status("GET", "/api/v1/pipelines", reader) == 200
            assert await status("POST", "/api/v1/query", reader, {"sql": "select 1"}) == 200
            assert await status("POST", "/api/v1/namespaces", reader, name) == 403
            assert await status("POST", "/api/v1/namespaces", writer, name) == 201
            listed = await http.get("/api/v1/namespaces?limit=200", headers={"Authorization": f"Bearer {writer}"})
            assert {one["name"]: one["created_by"] for one in listed.json()["namespaces"]}[name["name"]] == "writer"
            await known.revoke("reader")
            assert await status("GET", "/api/v1/pipelines", reader) == 401


async def test_a_port_that_is_taken_is_named(platform: tuple[Stack, str]) -> None:
    stack, url = platform
    taken = int(url.rpartition(":")[2])

    with pytest.raises(Conflict, match=str(taken)):
        async with serve(stack.settings.model_copy(update={"gateway_port": taken})):
            pass
