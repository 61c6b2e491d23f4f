"""The HTTP API in front of all services: shapes, errors, streams, and who may call."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pyarrow as pa
import pytest
from nats.aio.msg import Msg

from contracts.runs import RunStatus
from infra.services import SERVICES, serving
from infra.stacks.stack import Stack
from services.gateway.service import serve
from services.gateway.tokens import Scope, tokens
from shared.errors import Conflict, Invalid
from tests.client import Client, client, unique
from tests.outside import nats_client
from tests.stacks import StackIn
from tests.waiting import eventually

CARRIERS = ("run.queued", "run.started", "run.finished", "run.requested", "trigger.decided")
NOBODYS = UUID(int=0)
"""The id of nothing that there is."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(scope="module")
async def platform(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, str]]:
    async with (
        stack_in(tmp_path_factory.mktemp("platform")) as stack,
        serving(SERVICES, stack.settings) as running,
    ):
        yield stack, running["gateway"]


@pytest.fixture(scope="module")
async def user(platform: tuple[Stack, str]) -> AsyncIterator[Client]:
    stack, url = platform
    async with client(stack.settings, url) as user:
        yield user


@pytest.fixture
def http(user: Client) -> httpx.AsyncClient:
    return user.http


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that tells of an error in the right shape."""
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["error"].keys() == {"code", "type", "message"}
    assert body["status"] == status
    return body


@pytest.fixture(scope="module")
async def flights(user: Client) -> str:
    """A table with a row of each interesting type."""
    sql = """
    select
      range::int as id,
      9007199254740993 + range as big,
      1.5::decimal(10,2) as price,
      date '2026-01-02' as day,
      timestamptz '2026-01-02 03:04:05+00' as at,
      case when range = 0 then 'nan'::double else 0.5 end as ratio,
      [1, 2] as list,
      {'a': 1} as struct,
      'x'::blob as blob
    from range(3)
    """
    pipeline = await user.pipeline(f"default.bronze.{unique('flights')}", sql)
    await user.succeeded(await user.run(pipeline))
    return pipeline


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
    assert {"nats", "catalog", "ingest", "query", "runner", "scheduler", "trigger", "catalog/postgres"} <= set(
        dependencies
    )
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

        await eventually(lambda: ("run.finished", follower) in said, within=30)
    finally:
        await subscriber.close()
    expected = {(subject, pipeline) for subject in CARRIERS[:3] for pipeline in (source, follower)}
    expected |= {("run.requested", follower), ("trigger.decided", follower)}
    assert {key: said.get(key) for key in expected} == dict.fromkeys(expected, given)


# Pipelines and runs


async def test_a_pipeline_has_the_fields_that_clients_know(user: Client) -> None:
    name = unique("known")
    await user.pipeline(f"default.silver.{name}", "select 1 as id")

    pipeline = await user.get(f"/pipelines/default/silver/{name}")

    assert list(pipeline) == [
        "id",
        "namespace",
        "layer",
        "name",
        "type",
        "s3_path",
        "description",
        "owner",
        "published_at",
        "published_versions",
        "version",
        "draft_dirty",
        "max_versions",
        "created_at",
        "updated_at",
    ]
    assert (pipeline["version"], pipeline["draft_dirty"]) == (1, False)
    assert TIME.fullmatch(pipeline["published_at"])


async def test_a_publication_that_does_not_pass_says_what_is_wrong_in_each_file(
    user: Client, http: httpx.AsyncClient
) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('bad')}", "selec 1", publish=False)

    answer = await http.post(f"/pipelines/{pipeline.replace('.', '/')}/publish")

    validation = problem(answer, 422, "UNPROCESSABLE")["validation"]
    assert validation["valid"] is False
    [file] = [file for file in validation["files"] if not file["valid"]]
    assert file["path"].endswith("pipeline.sql")
    assert file["errors"][0]["line"] == 1


async def test_a_pipeline_goes_back_to_an_older_version_and_tells_what_differs(
    user: Client, http: httpx.AsyncClient
) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('back')}", "select 1 as id")
    path = f"/pipelines/{pipeline.replace('.', '/')}"
    file = f"/files/{pipeline.replace('.', '/pipelines/', 1).replace('.', '/')}/pipeline.sql"
    await http.put(file, json={"content": "select 2 as id"})
    await user.post(f"{path}/publish", {"message": "second"})

    answer = await http.post(f"{path}/rollback", json={"version": 1, "message": "it was right"})

    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "status": "rolled_back",
        "from_version": 1,
        "new_version": 3,
        "message": "it was right",
    }
    assert ((await user.get(path))["version"], (await user.get(path))["draft_dirty"]) == (3, True)
    diff = await user.get(f"{path}/versions/3/diff")
    assert (diff["version"], diff["against"], diff["total"]) == (3, "draft", 1)
    assert diff["files"][0]["diff"].splitlines()[-4:] == [
        "-select 1 as id",
        "\\ No newline at end of file",
        "+select 2 as id",
        "\\ No newline at end of file",
    ]
    assert (await user.get(f"{path}/versions/3/diff", against="1"))["files"] == []
    assert (await user.get(f"{path}/versions/1"))["version_number"] == 1
    problem(await http.post(f"{path}/rollback", json={"version": 9}), 404, "NOT_FOUND")
    problem(await http.post(f"{path}/rollback", json={}), 400, "INVALID_ARGUMENT")
    problem(await http.get(f"{path}/versions/3/diff", params={"against": "x"}), 400, "INVALID_ARGUMENT")


async def test_lineage_says_what_tables_and_their_columns_come_from(user: Client, http: httpx.AsyncClient) -> None:
    space, zone = unique("drawn").replace("_", "-"), unique("zone")
    await user.post("/namespaces", {"name": space})
    await user.zone(zone, space)
    await user.upload(zone, "a.csv", "id,price\n1,2.5\n", space)
    sql = f"select *, price * 2 as double from {{{{ landing_zone('{zone}') }}}}"
    raw = await user.pipeline(f"{space}.bronze.raw", sql)
    await user.succeeded(await user.run(raw))
    priced = await user.pipeline(
        f"{space}.silver.priced",
        "select id, double + price as total, now() as at from {{ ref('bronze.raw') }}",
        positive="select * from {{ this }} where total < 0",
    )
    run_id = await user.run(priced)
    await user.succeeded(run_id)
    await user.pipeline(f"{space}.gold.draft", "select 1 as a", publish=False)

    graph = await user.get("/lineage", namespace=space)

    nodes = {node["id"]: node for node in graph["nodes"]}
    assert nodes.keys() == {
        f"pipeline:{raw}",
        f"pipeline:{priced}",
        f"pipeline:{space}.gold.draft",
        f"table:{raw}",
        f"table:{priced}",
        f"landing_zone:{space}/{zone}",
    }
    assert nodes[f"landing_zone:{space}/{zone}"]["landing_info"] == {"file_count": 1}
    assert nodes[f"table:{priced}"]["table_stats"]["row_count"] == 1
    assert (nodes[f"pipeline:{priced}"]["latest_run"]["id"], nodes[f"pipeline:{priced}"]["latest_run"]["status"]) == (
        run_id,
        "success",
    )
    assert nodes[f"pipeline:{priced}"]["quality"] == {"total": 1, "passed": 1, "failed": 0, "warned": 0}
    assert "latest_run" not in nodes[f"pipeline:{space}.gold.draft"]
    assert {(edge["source"], edge["target"], edge["type"]) for edge in graph["edges"]} == {
        (f"landing_zone:{space}/{zone}", f"pipeline:{raw}", "landing_input"),
        (f"pipeline:{raw}", f"table:{raw}", "produces"),
        (f"table:{raw}", f"pipeline:{priced}", "ref"),
        (f"pipeline:{priced}", f"table:{priced}", "produces"),
    }
    of_raw = await user.get("/lineage/columns", table=raw)
    assert {line["name"]: [(one["name"], one["column"]) for one in line["sources"]] for line in of_raw["columns"]} == {
        "id": [(f"{space}/{zone}", "id")],
        "price": [(f"{space}/{zone}", "price")],
        "double": [(f"{space}/{zone}", "price")],
    }
    of_priced = await user.get("/lineage/columns", table=priced)
    assert of_priced == {
        "table": priced,
        "version": 1,
        "columns": [
            {"name": "id", "sources": [{"type": "table", "name": raw, "column": "id"}]},
            {
                "name": "total",
                "sources": [
                    {"type": "table", "name": raw, "column": "double"},
                    {"type": "table", "name": raw, "column": "price"},
                ],
            },
            {"name": "at", "sources": []},
        ],
    }
    problem(await http.get("/lineage/columns", params={"table": f"{space}.gold.draft"}), 404, "NOT_FOUND")
    problem(await http.get("/lineage/columns", params={"table": "x"}), 400, "INVALID_ARGUMENT")


async def test_a_draft_is_previewed_over_its_samples(user: Client, http: httpx.AsyncClient) -> None:
    zone = unique("sampled")
    await user.zone(zone)
    sample = {"file": ("some.csv", b"id,name\n1,one\n2,two\n")}
    assert (await http.post(f"/landing-zones/default/{zone}/samples", files=sample)).status_code == 201
    sql = f"select * from {{{{ landing_zone('{zone}') }}}}"
    pipeline = await user.pipeline(f"default.bronze.{unique('seen')}", sql, publish=False)
    path = f"/pipelines/{pipeline.replace('.', '/')}/preview"

    answer = await http.post(path, json={"limit": 1})
    bare = await http.post(path)
    mistaken = await http.post(path, json={"code": "select 1,\n  nope from range(1)"})

    assert answer.status_code == 200, answer.text
    seen = answer.json()
    assert seen["columns"] == [{"name": "id", "type": "BIGINT"}, {"name": "name", "type": "VARCHAR"}]
    assert (seen["rows"], seen["total_row_count"]) == ([{"id": 1, "name": "one"}], 2)
    assert [phase["name"] for phase in seen["phases"]] == ["compile", "plan", "query", "count"]
    assert seen["explain_output"]
    assert seen["memory_peak_bytes"] > 0
    assert seen["logs"]
    assert seen["warnings"] == []
    assert seen["error"] is None
    assert len(bare.json()["rows"]) == 2
    assert mistaken.json()["error"].startswith("pipeline.sql:2:3: ")
    assert (await user.get(f"/landing-zones/default/{zone}/files"))["total"] == 0
    problem(await http.post("/pipelines/default/bronze/nope/preview"), 404, "NOT_FOUND")
    problem(await http.post(path, json={"limit": 0}), 400, "INVALID_ARGUMENT")
    problem(await http.post(path, json={"sample_files": ["none.csv"]}), 400, "INVALID_ARGUMENT")


async def test_tests_judge_main_on_demand_and_their_history_is_kept(user: Client, http: httpx.AsyncClient) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('judged')}", "select range as id from range(3)")
    path = f"/pipelines/{pipeline.replace('.', '/')}"
    for name, sql, severity in (("small", "where id > 1", "warn"), ("known", "where id is null", "error")):
        body = {"name": name, "sql": f"select * from {{{{ this }}}} {sql}", "severity": severity}
        assert (await http.post(f"{path}/tests", json=body)).status_code == 201
    await user.post(f"{path}/publish")
    run = await user.succeeded(await user.run(pipeline))

    judged = await http.post(f"{path}/tests/run")

    assert judged.status_code == 200, judged.text
    results = {result["name"]: result for result in judged.json()["results"]}
    assert {"name", "status", "severity", "value", "expected", "duration_ms", "sample_rows"} <= results["small"].keys()
    assert (results["small"]["status"], results["small"]["value"]) == ("warned", 1)
    assert results["small"]["sample_rows"] == [{"id": 2}]
    assert results["known"]["status"] == "passed"
    assert [judged.json()[count] for count in ("passed", "failed", "total")] == [1, 0, 2]
    history = await user.get(f"{path}/tests/small/results")
    assert [(one["run_id"], one["status"], one["value"]) for one in history["results"]] == [(run["id"], "warned", 1)]
    assert history["total"] == 1
    problem(await http.get(f"{path}/tests/nothing/results"), 404, "NOT_FOUND")


async def test_a_dry_run_says_what_would_change_and_can_be_run_again(user: Client, http: httpx.AsyncClient) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('dry')}", "select range as id from range(3)")
    namespace, layer, name = pipeline.split(".")
    body = {"namespace": namespace, "layer": layer, "pipeline": name, "dry_run": True}

    run = await user.succeeded((await user.post("/runs", body))["run_id"])
    again = await http.post(f"/runs/{run['id']}/retry")

    [change] = run["changes"]
    assert (change["table"], change["is_new"], change["rows_added"]) == (pipeline, True, 3)
    assert change["schema_changes"] == [{"column": "id", "change": "added", "before": None, "after": "BIGINT"}]
    problem(await http.get(f"/tables/{pipeline.replace('.', '/')}"), 404, "NOT_FOUND")
    assert again.status_code == 202
    assert again.json()["run_id"] != run["id"]
    assert (await user.succeeded(again.json()["run_id"]))["dry_run"] is True


async def test_a_draft_is_written_only_over_the_version_that_its_author_saw(
    user: Client, http: httpx.AsyncClient
) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('draft')}", "select 1 as id", publish=False)
    path = f"/files/{pipeline.replace('.', '/pipelines/', 1).replace('.', '/')}/pipeline.sql"
    seen = (await user.get(path))["version_id"]

    first = await http.put(path, json={"content": "select 2 as id"}, headers={"If-Match": f'"{seen}"'})
    second = await http.put(path, json={"content": "select 3 as id"}, headers={"If-Match": seen})

    assert first.status_code == 200
    assert first.json().keys() == {"path", "status", "version_id"}
    problem(second, 409, "CONFLICT")
    assert (await user.get(path))["content"] == "select 2 as id"


async def test_a_file_can_be_sent_as_a_form(user: Client, http: httpx.AsyncClient) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('form')}", "select 1 as id", publish=False)
    path = f"{pipeline.replace('.', '/pipelines/', 1).replace('.', '/')}/tests/quality/ids.sql"

    answer = await http.post("/files/upload", data={"path": path}, files={"file": ("ids.sql", b"select 1 where false")})
    binary = await http.post("/files/upload", data={"path": path}, files={"file": ("ids.sql", b"\xff\xfe")})

    assert answer.status_code == 201
    assert (await user.get(f"/files/{path}"))["content"] == "select 1 where false"
    problem(binary, 400, "INVALID_ARGUMENT")


async def test_the_same_idempotency_key_is_the_same_run_and_another_body_a_conflict(
    user: Client, http: httpx.AsyncClient
) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('once')}", "select 1 as id")
    namespace, layer, name = pipeline.split(".")
    body = {"namespace": namespace, "layer": layer, "pipeline": name}
    key = {"Idempotency-Key": uuid4().hex}

    first, second = [await http.post("/runs", json=body, headers=key) for _ in range(2)]
    other = await http.post("/runs", json=body | {"parameters": {"x": 1}}, headers=key)

    assert first.status_code == second.status_code == 202
    assert first.json()["run_id"] == second.json()["run_id"]
    assert first.json()["status"] == "pending"
    problem(other, 409, "CONFLICT")
    run = await user.succeeded(first.json()["run_id"])
    assert len(await user.runs(pipeline)) == 1
    problem(await http.post(f"/runs/{run['id']}/cancel"), 409, "CONFLICT")


async def test_runs_are_listed_by_what_is_asked_for(user: Client) -> None:
    pipeline = await user.pipeline(f"default.gold.{unique('listed')}", "select 1 as id")
    run = await user.succeeded(await user.run(pipeline))
    name = pipeline.rpartition(".")[2]

    async def total(**wanted: str) -> int:
        found = await user.get("/runs", pipeline=name, **wanted)
        return int(found["total"])

    assert await total(status=RunStatus.SUCCESS, trigger="manual", layer="gold", namespace="default") == 1
    assert await total(status=RunStatus.FAILED) == 0
    assert await total(started_after=run["finished_at"]) == 0
    assert await total(started_before=run["finished_at"], started_after="2026-01-01T00:00:00Z") == 1


async def test_triggers_and_schedules_live_under_their_pipelines(user: Client, http: httpx.AsyncClient) -> None:
    zone = await user.zone(unique("woken"))
    pipeline = await user.pipeline(f"default.bronze.{zone}", "select 1 as id")
    path = f"/pipelines/{pipeline.replace('.', '/')}/triggers"

    trigger = await user.trigger(pipeline, "landing_zone_upload", {"namespace": "default", "zone_name": zone})
    changed = await http.put(f"{path}/{trigger}", json={"cooldown_seconds": 7})
    fired = await http.post(f"{path}/{trigger}/fire")
    decisions = await user.get(f"{path}/{trigger}/decisions")
    scheduled = await http.post(
        "/schedules", json={"namespace": "default", "layer": "bronze", "pipeline": zone, "cron": "0 6 * * *"}
    )
    schedule = scheduled.json()
    paused = await http.put(f"/schedules/{schedule['id']}", json={"enabled": False})

    assert changed.json()["cooldown_seconds"] == 7
    assert fired.status_code == 202
    assert fired.json()["decision"] == "fired"
    assert decisions["total"] == 1
    assert scheduled.status_code == 201
    assert len(schedule["upcoming"]) == 5
    assert TIME.fullmatch(schedule["next_run_at"])
    assert paused.json()["enabled"] is False
    assert (await http.delete(f"/schedules/{schedule['id']}")).status_code == 204
    assert (await http.delete(f"{path}/{trigger}")).status_code == 204
    problem(await http.get(f"{path}/{trigger}"), 404, "NOT_FOUND")


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


# Tables and queries


async def test_a_table_shows_its_columns_and_what_its_owner_says(
    user: Client, http: httpx.AsyncClient, flights: str
) -> None:
    path = f"/tables/{flights.replace('.', '/')}"

    described = await http.put(f"{path}/metadata", json={"description": "flown", "column_descriptions": {"id": "key"}})
    table = await user.get(path)
    listed = await user.get("/tables", namespace="default", layer="bronze")

    assert described.status_code == 200
    assert (table["row_count"], table["description"]) == (3, "flown")
    assert table["size_bytes"] > 0
    assert TIME.fullmatch(table["updated_at"])
    assert table["columns"][0] == {"name": "id", "type": "INTEGER", "nullable": True, "description": "key"}
    assert [column["type"] for column in table["columns"][1:5]] == [
        "BIGINT",
        "DECIMAL(10,2)",
        "DATE",
        "TIMESTAMP WITH TIME ZONE",
    ]
    [summary] = [one for one in listed["tables"] if one["name"] == flights.rpartition(".")[2]]
    assert summary == {key: value for key, value in table.items() if key != "columns"}


async def test_the_schema_of_all_tables(user: Client, flights: str) -> None:
    schema = await user.get("/schema")

    [table] = [one for one in schema["tables"] if one["name"] == flights.rpartition(".")[2]]
    assert table.keys() == {"namespace", "layer", "name", "columns"}
    assert table["columns"][0] == {"name": "id", "type": "INTEGER"}


async def test_a_query_as_json(user: Client, flights: str) -> None:
    answer = await user.post("/query", {"sql": f"select * from {flights} order by id", "limit": 2})

    assert list(answer) == ["columns", "rows", "total_rows", "duration_ms", "truncated"]
    assert answer["columns"][1] == {"name": "big", "type": "BIGINT"}
    assert answer["rows"][0] == {
        "id": 0,
        "big": "9007199254740993",
        "price": "1.50",
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000000Z",
        "ratio": "NaN",
        "list": [1, 2],
        "struct": {"a": 1},
        "blob": "eA==",
    }
    assert (answer["total_rows"], answer["truncated"]) == (2, True)


async def test_an_empty_result_is_an_answer(user: Client) -> None:
    answer = await user.post("/query", {"sql": "select 1 as one where false"})

    assert (answer["columns"], answer["rows"]) == ([{"name": "one", "type": "INTEGER"}], [])


async def test_a_query_as_arrow_and_as_csv(http: httpx.AsyncClient, flights: str) -> None:
    sql = {"sql": f"select id, price, list from {flights} order by id"}

    arrow = await http.post("/query", json=sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    text = await http.post("/query", json=sql, headers={"Accept": "text/csv"})

    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()["id"].to_pylist() == [0, 1, 2]
    assert text.headers["content-type"].startswith("text/csv")
    assert text.text.splitlines()[:2] == ["id,price,list", '0,1.50,"[1, 2]"']


async def test_a_large_result_is_streamed_in_every_format(http: httpx.AsyncClient) -> None:
    sql = {"sql": "select i, repeat('x', 100) as text from range(100000) t(i)", "limit": 100_000}

    as_json = await http.post("/query", json=sql)
    arrow = await http.post("/query", json=sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    text = await http.post("/query", json=sql, headers={"Accept": "text/csv"})

    assert [row["i"] for row in as_json.json()["rows"]] == list(range(100_000))
    assert pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all().num_rows == 100_000
    assert len(text.text.splitlines()) == 100_001


async def test_a_mistake_in_a_query_has_duckdbs_message_and_its_place(http: httpx.AsyncClient) -> None:
    answer = await http.post("/query", json={"sql": "select 1,\n  nope"})

    body = problem(answer, 400, "INVALID_ARGUMENT")
    assert (body["line"], body["column"]) == (2, 3)
    assert 'Referenced column "nope" was not found' in body["detail"]


async def test_a_preview(user: Client, flights: str) -> None:
    answer = await user.get(f"/tables/{flights.replace('.', '/')}/preview", limit=1)

    assert len(answer["rows"]) == 1
    assert answer["truncated"] is True


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
    said = [json.loads((await heard.next_msg(timeout=5)).data) for _ in range(2)]
    await connection.close()

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
            assert await status("GET", "/health/ready", None) == 200
            assert await status("GET", "/schema/openapi.json", None) == 200
            assert await status("GET", "/api/v1/pipelines", None) == 401
            assert await status("GET", "/api/v1/pipelines", "rat_guess") == 401
            assert await status("GET", "/metrics", None) == 401
            assert await status("GET", "/api/v1/pipelines", reader) == 200
            assert await status("POST", "/api/v1/query", reader, {"sql": "select 1"}) == 200
            assert await status("POST", "/api/v1/namespaces", reader, name) == 403
            assert await status("POST", "/api/v1/namespaces", writer, name) == 201
            await known.revoke("reader")
            assert await status("GET", "/api/v1/pipelines", reader) == 401


async def test_a_port_that_is_taken_is_named(platform: tuple[Stack, str]) -> None:
    stack, url = platform
    taken = int(url.rpartition(":")[2])

    with pytest.raises(Conflict, match=str(taken)):
        async with serve(stack.settings.model_copy(update={"gateway_port": taken})):
            pass
