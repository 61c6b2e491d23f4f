"""A pipeline may be a view: its query is kept with the names of what it reads, and resolved whenever it is read."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.names import Qualified
from contracts.pipelines import ValidatePipeline
from contracts.runs import ErrorKind, PinnedFile, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.lakehouse.port import MAIN, Lakehouse, RelationKind
from tests.running import RunOf, Surroundings, surroundings, table_name
from tests.tables import Catalogs

VIEW = "-- @materialized: view\n"


@pytest.fixture(scope="module")
async def around(stack: Stack) -> AsyncIterator[Surroundings]:
    settings = stack.settings.model_copy(update={"runner_workers": 2})
    async with surroundings(settings) as around, serve(settings):
        yield around


@pytest.fixture(scope="module")
def lake(around: Surroundings) -> Lakehouse:
    return around.tables


def ref(table: str) -> str:
    return f"{{{{ ref('{table}') }}}}"


async def good(around: Surroundings, sql: str, **more: object) -> RunOf:
    run = await around.request(sql, **more)  # type: ignore[arg-type]
    ended = await around.finished(run)
    assert ended.error is None
    assert ended.status is RunStatus.SUCCESS
    return run


async def refused(around: Surroundings, sql: str, **more: object) -> str:
    run = await around.request(sql, **more)  # type: ignore[arg-type]
    ended = await around.finished(run)
    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.COMPILE)
    return ended.error or ""


async def kept(on: Catalogs, view: str) -> str:
    found = await asyncio.to_thread(on(MAIN).load_view, tuple(Qualified.parse(view)))
    told = found.sql_for("duckdb")
    assert told is not None
    return told.sql


async def test_a_view_keeps_its_query_with_whole_names_and_writes_no_rows(around: Surroundings, on: Catalogs) -> None:
    table = (await good(around, "select 1 as id, 'a' as name")).pipeline
    _, layer, name = table.split(".")

    run = await good(
        around, f"{VIEW}select id, {layer}.{name}.name as n from {layer}.{name} where '{{{{ run_id }}}}' <> ''"
    )

    assert run.ended is not None
    assert (run.ended.rows_written, run.ended.tables[0].table) == (0, run.pipeline)
    relation = await around.tables.relation(Qualified.parse(run.pipeline))
    assert relation is not None
    assert relation.kind is RelationKind.VIEW
    sql = await kept(on, run.pipeline)
    assert f'from "default"."{layer}"."{name}" as "{name}"' in sql
    assert str(run.id) in sql
    view = await asyncio.to_thread(on(MAIN).load_view, tuple(Qualified.parse(run.pipeline)))
    assert [field.name for field in view.schema().fields] == ["id", "n"]
    assert view.properties == {"rat.pipeline_id": str(run.pipeline_id)}


async def test_pipelines_and_tests_read_through_views(around: Surroundings) -> None:
    table_run = await good(around, "select unnest([1, 2, 3]) as n")
    table = table_run.pipeline
    low = (await good(around, f"{VIEW}select n * 10 as n from {ref(table)} -- times ten")).pipeline
    high = (await good(around, f"{VIEW}with low as (from {ref(low)}) select n + 1 as n from low")).pipeline

    run = await good(
        around,
        f"select sum(h.n) as total, count(*) as rows from {ref(high)} h join {ref(low)} l on l.n + 1 = h.n",
        tests={"all": f"select * from {{{{ this }}}} where total <> (select sum(n) from {ref(high)})"},
    )
    await good(around, "select 100 as n", pipeline=table, pipeline_id=table_run.pipeline_id)
    later = await good(around, f"select n from {ref(high)}")

    assert await around.rows(run.pipeline) == [(63, 3)]
    assert await around.rows(later.pipeline) == [(1001,)]


async def test_tests_of_a_view_read_it_on_the_branch_and_keep_it_off_main(around: Surroundings) -> None:
    table = (await good(around, "select unnest([1, 2, 3]) as n")).pipeline
    tests = {"small": "select * from {{ this }} where n > 2"}

    bad = await around.request(f"{VIEW}select n from {ref(table)}", tests=tests)
    ended = await around.finished(bad)
    run = await good(around, f"{VIEW}select n from {ref(table)} where n < 3", tests=tests)

    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.QUALITY)
    assert (ended.error or "").startswith("test small found 1 row")
    assert await around.tables.relation(Qualified.parse(bad.pipeline)) is None
    assert run.ended is not None
    assert run.ended.quality.passed == 1


async def test_a_view_that_is_there_as_it_is_merges_nothing(around: Surroundings) -> None:
    pipeline, pipeline_id = table_name(), uuid4()
    mine = {"pipeline": pipeline, "pipeline_id": pipeline_id}
    await good(around, f"{VIEW}select 1 as n", **mine)

    again = await good(around, f"{VIEW}select 1 as n", **mine)
    other = await good(around, f"{VIEW}select 2 as n", **mine)

    assert [await around.merges(run) for run in (again, other)] == [0, 1]


async def test_a_table_becomes_a_view_and_a_table_again(around: Surroundings) -> None:
    pipeline, pipeline_id = table_name(), uuid4()
    mine = {"pipeline": pipeline, "pipeline_id": pipeline_id}
    await good(around, "select 1 as n", **mine)
    await good(around, f"{VIEW}select 2 as n", **mine)
    relation = await around.tables.relation(Qualified.parse(pipeline))
    assert relation is not None
    assert relation.kind is RelationKind.VIEW

    appending = "-- @merge_strategy: append_only\nselect {{ 4 if is_incremental() else 3 }} as n"
    await good(around, appending, **mine)
    assert await around.rows(pipeline) == [(3,)]
    await good(around, appending, **mine)
    assert sorted(await around.rows(pipeline)) == [(3,), (4,)]


async def test_a_view_of_a_pipeline_that_was_deleted_is_replaced_as_a_whole(around: Surroundings) -> None:
    pipeline = table_name()
    await good(around, f"{VIEW}select 1 as n", pipeline=pipeline, pipeline_id=uuid4())

    appending = await around.request("-- @merge_strategy: append_only\nselect 2 as n", pipeline=pipeline)
    ended = await around.finished(appending)
    run = await good(around, "select 3 as n", pipeline=pipeline)

    assert "was written by another pipeline of this name" in (ended.error or "")
    assert await around.rows(run.pipeline) == [(3,)]


async def test_what_a_view_cannot_read_is_told_with_its_place(around: Surroundings) -> None:
    name = table_name()
    for sql, error in [
        ("select * from {{ landing_zone('orders') }}", "pipeline.sql:2:15: a view reads no landing zone, as 'orders'"),
        ("select * from read_csv({{ landing_zone('orders') }})", "pipeline.sql:2:24: a view reads no landing zone"),
        ("from {{ this }}", "pipeline.sql:2:6: a view cannot read itself"),
        ("from read_parquet('s3://rat/x/*.parquet')", "pipeline.sql:2:6: a view cannot read files, as read_parquet()"),
        ("from 's3://rat/x/y.parquet'", "pipeline.sql:2:6: a view cannot read the file 's3://rat/x/y.parquet'"),
    ]:
        answer = await around.bus.ask(ValidatePipeline(pipeline=name, files=await pinned(around, name, VIEW + sql)))
        assert (await refused(around, VIEW + sql, pipeline=name)).startswith(error)
        assert not answer.valid
        assert answer.files[0].errors[0].line == 2


async def pinned(around: Surroundings, pipeline: str, sql: str) -> list[PinnedFile]:
    stored = await around.code.put(Qualified.parse(pipeline).folder + "pipeline.sql", sql.encode())
    return [PinnedFile(path="pipeline.sql", version_id=stored.version_id or "")]


async def test_a_view_of_nothing_and_a_view_of_itself_are_told(around: Surroundings) -> None:
    one, two = table_name(), table_name()
    ids = {one: uuid4(), two: uuid4()}
    await good(around, "select 1 as n", pipeline=one, pipeline_id=ids[one])
    await good(around, f"{VIEW}from {ref(one)}", pipeline=two, pipeline_id=ids[two])

    nothing = await refused(around, f"{VIEW}select *\nfrom {ref('bronze.nothing')}")
    circle = await refused(around, f"{VIEW}select *\nfrom {ref(two)}", pipeline=one, pipeline_id=ids[one])
    # A table may well be made of a view that reads it.
    await good(around, f"select n + 1 as n from {ref(two)}", pipeline=one, pipeline_id=ids[one])

    assert nothing == "pipeline.sql:3:6: there is no table 'default.bronze.nothing'"
    first, second = sorted((one, two))
    assert circle == f"pipeline.sql:3:6: view {first} reads itself: {first} → {second} → {first}"
    assert await around.rows(one) == [(2,)]


async def test_a_view_that_reads_what_is_gone_is_told_where_it_is_read(around: Surroundings) -> None:
    table = (await good(around, "select 1 as n")).pipeline
    view = (await good(around, f"{VIEW}from {ref(table)}")).pipeline
    branch = f"run-{uuid4()}-1"
    await around.tables.create_branch(branch)
    await around.tables.drop_table(branch, Qualified.parse(table))
    await around.tables.merge(branch, None, None)

    error = await refused(around, f"select *\nfrom {ref(view)}")

    assert error == f"pipeline.sql:2:6: view {view} reads {table}, which does not exist"


async def test_python_reads_through_views_and_is_none(around: Surroundings) -> None:
    table = (await good(around, "select unnest([1, 2, 3]) as n")).pipeline
    view = (await good(around, f"{VIEW}select n * 2 as n from {ref(table)}")).pipeline
    code = f"def pipeline(ctx):\n    return ctx.ref({view!r}).filter('n > 2')\n"

    read = await good(around, code, path="pipeline.py")
    error = await refused(around, f"# @materialized: view\n{code}", path="pipeline.py")

    assert sorted(await around.rows(read.pipeline)) == [(4,), (6,)]
    assert error.startswith("pipeline.py:1: a view is a query in SQL")
