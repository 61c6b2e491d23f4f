"""The runner looks at code without a run: previews, and tests on what main holds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from contracts.pipelines import ValidatePipeline
from contracts.runs import ErrorKind
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.errors import Invalid, NotFound
from shared.settings import Settings
from tests.lives import command_of
from tests.running import Surroundings, surroundings, table_name
from tests.waiting import eventually

SLOW = "select count(*) as n from range(1000000000) a, range(1000) b where hash(a.range + b.range) % 7 = 1"


@pytest.fixture(scope="module")
def settings(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return stack.settings.model_copy(
        update={
            "runner_workers": 1,
            "preview_timeout_seconds": 8.0,
            "spill_directory": str(tmp_path_factory.mktemp("spill")),
        }
    )


@pytest.fixture(scope="module")
async def around(settings: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(settings) as around, serve(settings):
        yield around


async def test_a_preview_runs_the_draft_over_the_samples_and_writes_nothing(around: Surroundings) -> None:
    await around.upload("shop", "all.csv", "id,amount\n" + "".join(f"{n},1\n" for n in range(1000)))
    await around.put_sample("shop", "a.csv", "id,amount\n1,10.5\n2,20\n")
    await around.put_sample("shop", "b.csv", "id,amount\n3,30\n")
    pipeline = await around.draft(
        {
            "pipeline.sql": "select id, amount::decimal(10, 2) as amount, range as big\n"
            "from {{ landing_zone('shop', only='new') }}, range(9007199254740993, 9007199254740994) order by id"
        }
    )
    head = await around.tables.head()

    seen = await around.preview(pipeline, limit=2)

    assert (seen.error, seen.warnings) == (None, [])
    assert [(column.name, column.type) for column in seen.columns] == [
        ("id", "BIGINT"),
        ("amount", "DECIMAL(10,2)"),
        ("big", "BIGINT"),
    ]
    assert seen.rows == [
        {"id": 1, "amount": "10.50", "big": "9007199254740993"},
        {"id": 2, "amount": "20.00", "big": "9007199254740993"},
    ]
    assert seen.total_row_count == 3
    assert [phase.name for phase in seen.phases] == ["compile", "plan", "query", "count"]
    assert all(phase.duration_ms > 0 for phase in seen.phases)
    assert "ORDER_BY" in seen.explain_output
    assert seen.memory_peak_bytes > 10_000_000
    assert [line.message for line in seen.logs] == ["landing zone default/shop (new): 2 files"]
    assert await around.tables.head() == head
    assert not around.asked_files


async def test_a_preview_reads_the_samples_that_are_named(around: Surroundings) -> None:
    around.zones["named"] = []
    await around.put_sample("named", "a.csv", "id\n1\n")
    await around.put_sample("named", "b.csv", "id\n2\n")
    pipeline = await around.draft({"pipeline.sql": "select id from {{ landing_zone('named') }}"})

    seen = await around.preview(pipeline, sample_files=["b.csv"])

    assert seen.rows == [{"id": 2}]
    with pytest.raises(Invalid, match=r"has a sample 'c\.csv'"):
        await around.preview(pipeline, sample_files=["c.csv"])


async def test_a_preview_of_a_zone_without_samples_reads_its_files_and_claims_none(around: Surroundings) -> None:
    await around.upload("bare", "a [1].csv", "id\n1\n")
    await around.upload("bare", "bad.csv", "nothing of that kind\n")
    around.rejected.add("bad.csv")
    pipeline = await around.draft({"pipeline.sql": "select * from {{ landing_zone('bare') }}"})
    claimed = set(around.asked_files)

    seen = await around.preview(pipeline)

    assert seen.rows == [{"id": 1}]
    assert around.asked_files == claimed


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("pipeline.sql", "select range(200_000) as numbers from range(20)"),
        (
            "pipeline.py",
            "def pipeline(ctx):\n    return ctx.duckdb.sql('select range(200_000) as numbers from range(20)')",
        ),
    ],
)
async def test_a_preview_shows_no_more_than_can_be_looked_at(around: Surroundings, file: str, code: str) -> None:
    pipeline = await around.draft({file: code})

    seen = await around.preview(pipeline)

    assert 0 < len(seen.rows) < 20
    assert seen.total_row_count == 20
    assert seen.warnings == [f"only {len(seen.rows)} rows are shown: more of them are too large to look at"]


async def test_code_sent_along_takes_the_place_of_the_drafts(around: Surroundings) -> None:
    name = table_name()
    run = await around.request("select 1 as id union all select 2", pipeline=name)
    assert (await around.finished(run)).error is None
    pipeline = await around.draft(
        {"pipeline.sql": "select 'the draft' as what", "config.yaml": "merge_strategy: append_only"}, pipeline=name
    )

    seen = await around.preview(
        pipeline, code="select id, {{ is_incremental() }} as again from {{ this }} order by id", limit=1
    )

    assert (seen.error, seen.rows, seen.total_row_count) == (None, [{"id": 1, "again": True}], 2)
    assert await around.rows(name, "select count(*) from t") == [(2,)]


async def test_what_is_wrong_with_code_is_told_by_its_place(around: Surroundings) -> None:
    pipeline = await around.draft({"pipeline.sql": "select 1 as id"})

    jinja = await around.preview(pipeline, code="select 1\n{{ nothing }}")
    sql = await around.preview(pipeline, code="select 1 as id,\n  missing\nfrom range(1)")
    zone = await around.preview(pipeline, code="select * from {{ landing_zone('nowhere') }}")

    assert [seen.error_kind for seen in (jinja, sql, zone)] == [ErrorKind.COMPILE, ErrorKind.SQL, ErrorKind.COMPILE]
    assert jinja.error == "pipeline.sql:2:4: 'nothing' is undefined"
    assert (sql.error or "").startswith("pipeline.sql:2:3: ")
    assert '"missing"' in (sql.error or "")
    assert zone.error == "pipeline.sql:1:15: there is no landing zone 'default/nowhere'"
    assert sql.rows == []
    with pytest.raises(NotFound):
        await around.preview("default.bronze.nothing")


async def test_a_preview_larger_than_a_message_arrives_whole(around: Surroundings) -> None:
    pipeline = await around.draft({"pipeline.sql": "select range as id, repeat('x', 900) as text from range(5000)"})

    seen = await around.preview(pipeline, limit=1000)

    assert (len(seen.rows), seen.total_row_count) == (1000, 5000)
    assert len(seen.model_dump_json()) > 900_000


async def test_the_tests_of_a_draft_judge_what_main_holds(around: Surroundings) -> None:
    name = table_name()
    run = await around.request("select range as id from range(30)", pipeline=name)
    assert (await around.finished(run)).error is None
    pipeline = await around.draft(
        {
            "pipeline.sql": "this is no SQL, and does not matter",
            "tests/quality/small.sql": "-- @description: ids are small\nselect * from {{ this }} where id >= 5",
            "tests/quality/odd.sql": "-- @severity: warn\nselect * from {{ this }} where id % 2 = 1",
            "tests/quality/known.sql": "select * from {{ this }} where id is null",
            "tests/quality/broken.sql": "select * from {{ this }} where nothing",
        },
        pipeline=name,
    )
    head = await around.tables.head()

    judged = await around.judge_main(pipeline)

    assert judged.error is None
    assert [(result.name, result.status, result.value, result.expected) for result in judged.results] == [
        ("broken", "error", None, 0),
        ("known", "passed", 0, 0),
        ("odd", "warned", 15, 0),
        ("small", "failed", 25, 0),
    ]
    assert len(judged.results[3].sample_rows) == 20
    assert "iceberg_scan" in (judged.results[3].compiled_sql or "")
    assert (judged.passed, judged.failed, judged.warned, judged.errored, judged.total) == (1, 1, 1, 1, 4)
    assert await around.tables.head() == head


async def test_a_table_that_is_not_there_is_told_by_each_test(around: Surroundings) -> None:
    pipeline = await around.draft(
        {
            "pipeline.sql": "select 1",
            "tests/quality/t.sql": "select * from {{ this }}",
            "tests/quality/zone.sql": "from {{ landing_zone('gone') }}",
            "tests/quality/well.sql": "select 1 where false",
        }
    )

    table, well, zone = (await around.judge_main(pipeline)).results

    assert (table.status, well.status, zone.status) == ("error", "passed", "error")
    assert "is not there before its first run" in (table.message or "")
    assert zone.message == "tests/quality/zone.sql:1:6: there is no landing zone 'default/gone'"


@pytest.mark.parametrize(
    ("file", "code"),
    [("pipeline.sql", "{}"), ("pipeline.py", 'def pipeline(ctx):\n    return ctx.duckdb.sql("""{}""")')],
)
async def test_a_preview_shows_values_of_every_type(around: Surroundings, file: str, code: str) -> None:
    sql = """
        select timestamptz '2026-01-02 03:04:05+00' as at_, [timestamptz '2026-01-02 03:04:05+00'] as listed,
          date '0044-03-15 (BC)' as ides, uuid '00000000-0000-0000-0000-000000000001' as id, 2::hugeint ** 80 > 1 as big
    """
    pipeline = await around.draft({file: code.format(sql)})

    seen = await around.preview(pipeline)

    assert seen.error is None
    [row] = seen.rows
    assert (row["at_"], row["listed"]) == ("2026-01-02T03:04:05+00:00", ["2026-01-02T03:04:05+00:00"])
    assert row["id"] == "00000000-0000-0000-0000-000000000001"


async def test_a_preview_that_takes_too_long_ends_and_what_is_known_by_then_is_told(
    around: Surroundings,
) -> None:
    pipeline = await around.draft({"pipeline.sql": "select 1"})

    nothing = await around.preview(pipeline, code=SLOW)
    counted = await around.preview(pipeline, code="select hash(a.range) as h from range(1000000000000) a")

    assert nothing.error_kind is ErrorKind.TIMEOUT
    assert nothing.error == "took longer than 8 s (preview_timeout_seconds) in phase query"
    assert nothing.explain_output
    assert (counted.error, len(counted.rows), counted.total_row_count) == (None, 100, None)
    assert any(warning.startswith("the rows were not counted: took longer") for warning in counted.warnings)


async def test_files_are_checked_by_no_more_processes_than_there_are_workers(around: Surroundings) -> None:
    name = await around.draft({"pipeline.sql": "select 1 as id"})
    query = ValidatePipeline(pipeline=name, files=around.drafts[name])
    seen: list[int] = []

    checks = [asyncio.create_task(around.bus.ask(query)) for _ in range(12)]

    def all_are_done() -> bool:
        seen.append(len(processes()))
        return all(check.done() for check in checks)

    await eventually(all_are_done, within=60)
    assert all(check.result().valid for check in checks)
    # One is at work, and one may be taking its place.
    assert max(seen) <= 2


def processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "services.runner.process" in command_of(child)]


async def test_a_preview_that_fills_the_memory_ends(around: Surroundings, settings: Settings) -> None:
    pipeline = await around.draft({"pipeline.sql": "select 1", "config.yaml": "memory_limit: 100MB"})

    seen = await around.preview(pipeline, code="select list(range) as all_of_them from range(100000000)")
    after = await around.preview(pipeline, code="select 1 as id")

    assert seen.error_kind is ErrorKind.MEMORY
    assert (seen.error or "").startswith("memory_limit of 100 MB was used up in phase query: ")
    assert after.rows == [{"id": 1}]
    assert settings.spill_directory is not None
    spill = Path(settings.spill_directory)
    assert await eventually(lambda: not [file for file in spill.rglob("*") if file.is_file()])
