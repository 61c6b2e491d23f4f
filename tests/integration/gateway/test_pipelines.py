"""The HTTP API of pipelines: their code, versions and tests, their runs, and what wakes them."""

from uuid import uuid4

import httpx

from contracts.runs import RunStatus
from tests.client import TIME, Client, problem, unique


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


async def test_null_clears_what_need_not_be_said(user: Client, http: httpx.AsyncClient) -> None:
    zone, name = unique("owned"), unique("owned")
    pipeline = await user.pipeline(f"default.silver.{name}", "select 1 as id")
    await user.succeeded(await user.run(pipeline))
    await user.zone(zone)
    owned = (
        (f"/pipelines/default/silver/{name}", f"/pipelines/default/silver/{name}"),
        (f"/tables/default/silver/{name}/metadata", f"/tables/default/silver/{name}"),
        (f"/landing-zones/default/{zone}", f"/landing-zones/default/{zone}"),
    )
    for put, get in owned:
        assert (await http.put(put, json={"owner": "ana", "description": "hers"})).is_success

        assert (await http.put(put, json={"owner": None, "description": None})).is_success

        shown = await user.get(get)
        assert (shown["owner"], shown["description"]) == (None, "hers")

    kept = f"/landing-zones/default/{zone}"
    assert (await http.put(kept, json={"processed_max_age_days": 3})).json()["processed_max_age_days"] == 3
    assert (await http.put(kept, json={"owner": "bob"})).json()["processed_max_age_days"] == 3
    assert (await http.put(kept, json={"processed_max_age_days": None})).json()["processed_max_age_days"] is None


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
    odd = problem(await http.get(f"{path}/versions/3/diff", params={"against": "x"}), 400, "INVALID_ARGUMENT")
    assert odd["detail"] == "against: Value error, 'x' is neither the number of a version nor 'draft'"


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
        "unknown": None,
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
    key = {"Idempotency-Key": uuid4().hex}
    again, repeated = [await http.post(f"/runs/{run['id']}/retry", headers=key) for _ in range(2)]

    [change] = run["changes"]
    assert (change["table"], change["is_new"], change["rows_added"]) == (pipeline, True, 3)
    assert change["schema_changes"] == [{"column": "id", "change": "added", "before": None, "after": "BIGINT"}]
    problem(await http.get(f"/tables/{pipeline.replace('.', '/')}"), 404, "NOT_FOUND")
    assert again.status_code == 202
    assert again.json()["run_id"] == repeated.json()["run_id"] != run["id"]
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
