"""A file lands, a tested table appears: the whole path as users see it."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.runs import run_id_for
from infra.services import SERVICES, serving
from tests.client import Client, unique
from tests.e2e.conftest import Platform
from tests.outside import nats_client
from tests.waiting import ASKING_SECONDS, eventually

READ_NEW = """
select id::bigint as id, amount::bigint as amount
from read_csv({{ landing_zone('%s', only='new') }}, header = true)
"""
APPEND = "merge_strategy: append_only\n"
POSITIVE = "-- @severity: error\n-- @description: amounts are positive\nselect id from {{ this }} where amount < 0\n"


def csv(*rows: tuple[int, int]) -> str:
    return "id,amount\n" + "".join(f"{number},{amount}\n" for number, amount in rows)


async def bronze(user: Client, *, cooldown_seconds: int = 0, **tests: str) -> tuple[str, str]:
    """A zone and a published pipeline that its files wake."""
    zone = await user.zone(unique("orders"))
    pipeline = await user.pipeline(f"default.bronze.{zone}", READ_NEW % zone, config=APPEND, **tests)
    await user.trigger(
        pipeline, "landing_zone_upload", {"namespace": "default", "zone_name": zone}, cooldown_seconds=cooldown_seconds
    )
    return zone, pipeline


async def ids(user: Client, table: str) -> list[int]:
    rows = await user.query(f"select id from {table} order by id")
    return [int(row["id"]) for row in rows]


async def all_ended(user: Client, pipeline: str, runs: int, within: float = 120) -> list[dict[str, Any]]:
    async def ended() -> list[dict[str, Any]] | None:
        found = await user.runs(pipeline)
        return found if len(found) >= runs and all(run["finished_at"] for run in found) else None

    return await eventually(ended, within=within, pause=ASKING_SECONDS)


async def test_a_file_put_straight_into_the_bucket_becomes_a_gold_table_two_triggers_away(user: Client) -> None:
    zone, first = await bronze(user)
    silver = await user.pipeline(
        f"default.silver.{zone}", f"select id, amount * 2 as amount from {{{{ ref('bronze.{zone}') }}}}"
    )
    gold = await user.pipeline(
        f"default.gold.{zone}", f"select sum(amount)::bigint as total from {{{{ ref('silver.{zone}') }}}}"
    )
    await user.trigger(silver, "pipeline_success", {"namespace": "default", "layer": "bronze", "pipeline": zone})
    await user.trigger(gold, "pipeline_success", {"namespace": "default", "layer": "silver", "pipeline": zone})

    await user.drop(zone, "a.csv", csv((1, 10), (2, 20)))

    async def total() -> list[dict[str, Any]]:
        return await user.query(f"select total from {gold}")

    assert await eventually(total, pause=ASKING_SECONDS) == [{"total": 60}]
    assert await ids(user, first) == [1, 2]


async def test_twenty_uploads_within_a_cooldown_are_two_runs_and_a_decision_each(user: Client) -> None:
    # Longer than a busy machine takes to take all of them.
    zone, pipeline = await bronze(user, cooldown_seconds=20)

    await asyncio.gather(*(user.upload(zone, f"{number}.csv", csv((number, 1))) for number in range(20)))

    async def all_read() -> bool:
        return await ids(user, pipeline) == list(range(20))

    async def decided() -> list[dict[str, Any]] | None:
        path = f"/pipelines/{pipeline.replace('.', '/')}/triggers"
        [trigger] = (await user.get(path))["triggers"]
        page = await user.get(f"{path}/{trigger['id']}/decisions", limit=200)
        return list(page["decisions"]) if page["total"] >= 20 else None

    await eventually(all_read, pause=ASKING_SECONDS)
    decisions = await eventually(decided, pause=ASKING_SECONDS)
    runs = await all_ended(user, pipeline, 2)
    assert len(runs) == 2
    assert sorted(one["decision"] for one in decisions) == ["coalesced"] * 18 + ["deferred", "fired"]
    assert sum(run["rows_written"] for run in runs) == 20


async def test_a_thousand_files_at_once_are_read_once_each_in_a_handful_of_runs(user: Client) -> None:
    zone, pipeline = await bronze(user)

    async def drop(start: int) -> None:
        for number in range(start, 1000, 16):
            await user.drop(zone, f"{number}.csv", csv((number, 1)))

    await asyncio.gather(*(drop(start) for start in range(16)))

    async def all_read() -> bool:
        return await ids(user, pipeline) == list(range(1000))

    await eventually(all_read, within=90, pause=ASKING_SECONDS)
    runs = await all_ended(user, pipeline, 1)
    assert len(runs) <= 30
    assert sum(run["rows_written"] for run in runs) == 1000


async def test_a_failing_test_leaves_main_as_it_was_and_the_corrected_file_goes_through(user: Client) -> None:
    zone, pipeline = await bronze(user, positive=POSITIVE)
    await user.drop(zone, "1.csv", csv((1, 10)))
    await all_ended(user, pipeline, 1)
    before = await user.get(f"/tables/{pipeline.replace('.', '/')}")

    await user.drop(zone, "2.csv", csv((2, -5)))
    runs = await all_ended(user, pipeline, 2)

    assert [run["status"] for run in runs] == ["success", "failed"]
    failed = await user.get(f"/runs/{runs[1]['id']}")
    assert failed["error_kind"] == "quality"
    assert [(one["name"], one["status"], one["value"]) for one in failed["quality"]] == [("positive", "failed", 1)]
    assert failed["quality"][0]["sample_rows"] == [{"id": 2}]
    assert await user.get(f"/tables/{pipeline.replace('.', '/')}") == before
    assert await ids(user, pipeline) == [1]

    await user.drop(zone, "3.csv", csv((3, 30)))
    await all_ended(user, pipeline, 3)
    await user.drop(zone, "2.csv", csv((2, 5)))

    async def corrected() -> bool:
        return await ids(user, pipeline) == [1, 2, 3]

    await eventually(corrected, pause=ASKING_SECONDS)


async def test_a_first_run_with_tests_passes_and_a_first_run_that_fails_leaves_no_table(user: Client) -> None:
    good = await user.pipeline(f"default.bronze.{unique('good')}", "select 1 as id, 5 as amount", positive=POSITIVE)
    bad = await user.pipeline(f"default.bronze.{unique('bad')}", "select 1 as id, -5 as amount", positive=POSITIVE)

    await user.succeeded(await user.run(good))
    run = await user.ended(await user.run(bad))

    assert await ids(user, good) == [1]
    assert run["status"] == "failed"
    answer = await user.http.get(f"/tables/{bad.replace('.', '/')}")
    assert answer.status_code == 404


async def test_a_warning_is_recorded_and_merged(user: Client) -> None:
    warning = "-- @severity: warn\nselect id from {{ this }} where amount < 0\n"
    pipeline = await user.pipeline(
        f"default.bronze.{unique('warned')}", "select 1 as id, -5 as amount", negative=warning
    )

    run = await user.succeeded(await user.run(pipeline))

    assert [(one["status"], one["severity"]) for one in run["quality"]] == [("warned", "warn")]
    assert await ids(user, pipeline) == [1]


async def test_what_a_run_merged_is_what_the_next_query_sees(user: Client) -> None:
    pipeline = await user.pipeline(
        f"default.bronze.{unique('steps')}", "select 1 as id", config="merge_strategy: append_only\n"
    )

    for number in range(1, 4):
        await user.succeeded(await user.run(pipeline))
        assert await user.query(f"select count(*) as n from {pipeline}") == [{"n": number}]


async def test_collecting_leaves_what_runs_have_written(user: Client) -> None:
    _, pipeline = await bronze(user)
    zone = pipeline.rpartition(".")[2]
    await user.upload(zone, "a.csv", csv((1, 10)))
    await all_ended(user, pipeline, 1)

    report = await user.post("/collections", {"dry_run": True})
    removed = await user.post("/collections")
    refused = await user.http.post("/collections", json={"grace_hours": 0})

    # What is there has just been written, needed or not.
    assert report["needed_files"] >= 4
    assert (removed["files"], removed["tables"]) == (0, [])
    assert refused.status_code == 400
    assert "grace_hours" in refused.text
    assert await ids(user, pipeline) == [1]


@pytest.mark.timeout(400)
async def test_fifty_requests_for_one_pipeline_run_one_at_a_time_and_none_stays_pending(user: Client) -> None:
    pipeline = await user.pipeline(
        f"default.bronze.{unique('queue')}", "select 1 as id", config="merge_strategy: append_only\n"
    )

    await asyncio.gather(*(user.run(pipeline) for _ in range(50)))

    runs = await all_ended(user, pipeline, 50, within=300)
    assert [run["status"] for run in runs] == ["success"] * 50
    spans = sorted((run["started_at"], run["finished_at"]) for run in runs)
    assert all(finished <= started for (_, finished), (started, _) in pairwise(spans))
    assert await user.query(f"select count(*) as n from {pipeline}") == [{"n": 50}]


@pytest.mark.timeout(600)
async def test_forty_pipelines_requested_at_once_all_end(user: Client) -> None:
    names = [f"default.silver.{unique('many')}" for _ in range(40)]
    for name in names:
        await user.pipeline(name, "select 42 as answer")

    run_ids = await asyncio.gather(*(user.run(name) for name in names))

    for run_id in run_ids:
        await user.succeeded(run_id, within=120)


async def test_two_replicas_of_each_service_give_the_same_results(platform: Platform, user: Client) -> None:
    others = [name for name in SERVICES if name != "gateway"]
    async with serving(others, platform.stack.settings):
        zone, pipeline = await bronze(user)
        for number in range(30):
            await user.drop(zone, f"{number}.csv", csv((number, 1)))

        async def all_read() -> bool:
            return await ids(user, pipeline) == list(range(30))

        await eventually(all_read, within=60, pause=ASKING_SECONDS)
        runs = await all_ended(user, pipeline, 1)
        assert {run["status"] for run in runs} == {"success"}


# Events of outsiders


@pytest.fixture
async def publisher(platform: Platform) -> AsyncIterator[Any]:
    """An outsider with a NATS client."""
    settings = platform.stack.settings
    connection = await nats_client(settings, "publisher")
    yield connection.jetstream()
    await connection.close()


async def test_a_plain_event_with_only_pipeline_and_trigger_makes_a_run(user: Client, publisher: Any) -> None:
    pipeline = await user.pipeline(f"default.bronze.{unique('outside')}", "select 1 as id")

    await publisher.publish(
        "run.requested",
        json.dumps({"pipeline": pipeline, "trigger": "event:billing"}).encode(),
        headers={"Nats-Msg-Id": (key := uuid4().hex)},
    )

    [run] = await all_ended(user, pipeline, 1)
    assert (run["status"], run["trigger"]) == ("success", "event:billing")
    assert UUID(run["id"]) == run_id_for(pipeline, str(UUID(key)))


async def test_a_malformed_request_is_a_dead_letter_that_names_the_field(user: Client, publisher: Any) -> None:
    mistake = unique("no.such.layer")
    await publisher.publish("run.requested", json.dumps({"pipeline": mistake, "trigger": "event:x"}).encode())

    async def found() -> dict[str, Any] | None:
        for one in await user.dead_letters():
            letter: dict[str, Any] = await user.get(f"/dead-letters/{one['id']}")
            if letter["body"]["pipeline"] == mistake:
                return letter
        return None

    letter = await eventually(found, pause=ASKING_SECONDS)
    assert "pipeline" in letter["reason"]


# By hand


async def test_a_newcomer_with_curl(user: Client) -> None:
    http = user.http
    zone, name = unique("trial"), unique("trial")

    made = await http.post("/landing-zones", json={"namespace": "default", "name": zone, "description": "by hand"})
    assert made.status_code == 201
    content = b"id,name\n1,ann\n2,bob\n"
    sent = await http.post(f"/landing-zones/default/{zone}/files", files={"file": ("a.csv", content)})
    assert sent.status_code == 201
    assert sent.json()["filename"] == "a.csv"
    assert sent.json()["size_bytes"] == len(content)
    created = await http.post(
        "/pipelines", json={"namespace": "default", "layer": "bronze", "name": name, "type": "sql"}
    )
    assert created.status_code == 201
    assert created.json() == {
        "namespace": "default",
        "layer": "bronze",
        "name": name,
        "s3_path": f"default/pipelines/bronze/{name}/",
        "files_created": ["pipeline.sql", "config.yaml"],
    }
    folder = f"default/pipelines/bronze/{name}"
    sql = f"select * from read_csv_auto('{{{{ landing_zone(\"{zone}\") }}}}')"
    written = await http.put(f"/files/{folder}/pipeline.sql", json={"content": sql})
    assert written.status_code == 200
    assert written.json()["status"] == "written"
    await http.put(f"/files/{folder}/config.yaml", json={"content": "merge_strategy: full_refresh\n"})

    asked = await http.post("/runs", json={"namespace": "default", "layer": "bronze", "pipeline": name})
    assert asked.status_code == 202
    assert asked.json()["status"] == "pending"
    run = await user.succeeded(asked.json()["run_id"])
    assert (run["trigger"], run["rows_written"], run["version"]) == ("manual", 2, None)
    assert [phase["name"] for phase in run["phase_profiles"]] == ["branch", "compile", "write", "merge"]

    answer = await http.post("/query", json={"sql": f"select * from default.bronze.{name}"})
    assert answer.json()["rows"] == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]
    assert [column["name"] for column in answer.json()["columns"]] == ["id", "name"]
    logs = await http.get(f"/runs/{asked.json()['run_id']}/logs")
    assert logs.json()["status"] == "success"
    assert logs.json()["logs"]

    assert (await http.delete(f"/pipelines/default/bronze/{name}")).status_code == 204
    assert (await http.delete(f"/landing-zones/default/{zone}")).status_code == 204
    assert (await http.get(f"/pipelines/default/bronze/{name}")).status_code == 404
