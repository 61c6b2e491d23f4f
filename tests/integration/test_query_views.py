"""A view is found by its name, and what it reads is found out each time, all at one reference."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType
from pyiceberg.view.metadata import ViewVersion

from contracts.names import Qualified
from contracts.tables import (
    FindTable,
    FindTableDocs,
    ListTableDocs,
    ListTables,
    PreviewTable,
    ReadSchemas,
    ResultEnd,
    RunSql,
    TableDocs,
    TableSummaries,
)
from infra.stacks.stack import Stack
from services.query.service import serve
from shared.bus import Bus
from shared.chunks import asking
from shared.errors import Invalid
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.port import Lakehouse
from shared.object_store import ObjectStore
from tests.buses import playing
from tests.tables import Catalogs, append, create_view, merged, merged_view, new_branch, upgraded

NAMESPACE = "viewing"
Ask = Callable[..., Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture(scope="module")
async def lake(stack: Stack) -> AsyncIterator[Lakehouse]:
    async with lakehouse(stack.settings, "runner") as lake:
        for namespace in (NAMESPACE, "others"):
            for layer in ("bronze", "silver", "gold"):
                await lake.ensure_namespace(namespace, layer)
        yield lake


@pytest.fixture(scope="module")
async def bus(stack: Stack) -> AsyncIterator[Bus]:
    bus = playing(stack.settings, "gateway")
    async with bus.running():
        yield bus


@pytest.fixture(scope="module")
async def catalog(stack: Stack) -> AsyncIterator[None]:
    """A catalog that knows nothing of any table."""

    async def docs(query: FindTableDocs) -> TableDocs:
        return TableDocs(table=query.table, description="", owner=None, column_descriptions={}, updated_at=None)

    async def summaries(_query: ListTableDocs) -> TableSummaries:
        return TableSummaries(tables=[])

    bus = playing(stack.settings, "catalog")
    bus.answer(FindTableDocs, docs)
    bus.answer(ListTableDocs, summaries)
    async with bus.running():
        yield


@pytest.fixture(scope="module")
async def query(stack: Stack, lake: Lakehouse, bus: Bus, catalog: None) -> AsyncIterator[Ask]:
    async def ask(sql: str, **more: Any) -> list[tuple[Any, ...]]:
        result, _ = await taken(bus, lambda inbox: RunSql(sql=sql, inbox=inbox, namespace=NAMESPACE, **more))
        return [tuple(row.values()) for row in result.to_pylist()]

    async with serve(stack.settings):
        yield ask


async def taken(bus: Bus, question: Callable[[str], Any]) -> tuple[pa.Table, ResultEnd]:
    async with asking(bus, question) as answer:
        content = b"".join([chunk async for chunk in answer])
        end: ResultEnd = await answer.end()
    return pa.ipc.open_stream(io.BytesIO(content)).read_all(), end


def named(layer: str, namespace: str = NAMESPACE) -> Qualified:
    return Qualified(namespace, layer, f"t{uuid4().hex[:8]}")


def full(table: Qualified) -> str:
    return ".".join(f'"{part}"' for part in table)


async def test_a_view_shows_what_its_table_holds_now(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    table, view = named("bronze"), named("silver")
    await merged(lake, on, table, 1, 2)
    await merged_view(lake, on, view, f"select n * 10 as n from {full(table)} -- ten times")

    before = await query(f"select n from silver.{view.name} order by n")
    await merged(lake, on, table, 3)
    after = await query(f"select n from {NAMESPACE}.silver.{view.name} as v join bronze.{table.name} using (n)")

    assert before == [(10,), (20,)]
    assert after == []
    assert await query(f"select sum(n) from silver.{view.name}") == [(60,)]


async def test_views_on_views_are_resolved_at_one_reference(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    table, low, high = named("bronze", "others"), named("silver"), named("gold", "others")
    await merged(lake, on, table, 1)
    await merged_view(lake, on, high, f"with t as (from {full(low)}) select n from t where exists (from {full(table)})")
    await merged_view(lake, on, low, f"select n + 1 as n from {full(table)}")
    snapshot = await lake.head()
    await merged_view(lake, on, low, f"select n + 100 as n from {full(table)}")
    branch = await new_branch(lake)
    append(on(branch), table, 5)
    on(branch).drop_view(tuple(low))
    create_view(on(branch), low, f"select max(n) as n from {full(table)}")
    sql = f"select n from others.gold.{high.name}"

    assert await query(sql) == [(101,)]
    assert await query(sql, snapshot=snapshot) == [(2,)]
    assert await query(sql, branch=branch) == [(5,)]


async def test_a_view_that_reads_what_is_gone_says_so(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    gone, view, above = named("bronze"), named("silver"), named("gold")
    await merged_view(lake, on, view, f"from {full(gone)}")
    await merged_view(lake, on, above, f"from {full(view)}")

    for sql in (f"from gold.{above.name}", f"select 1, n from silver.{view.name}"):
        with pytest.raises(Invalid) as raised:
            await query(sql)
        assert raised.value.message == f"Catalog Error: View {view} reads {gone}, which does not exist!"


async def test_a_view_whose_column_is_gone_says_which_view_that_is(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    table, view = named("bronze"), named("silver")
    await merged(lake, on, table, 1)
    await merged_view(lake, on, view, f"select m from {full(table)}")

    with pytest.raises(Invalid) as raised:
        await query(f"from silver.{view.name}")

    assert raised.value.message.startswith(f'View {view} cannot be read: Binder Error: Referenced column "m" not found')
    assert "line" not in raised.value.details


async def test_views_in_a_circle_are_named(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    one, two, three = sorted(named("silver") for _ in range(3))
    for view, read in ((one, two), (two, three), (three, one)):
        await merged_view(lake, on, view, f"from {full(read)}")

    with pytest.raises(Invalid) as raised:
        await query(f"from silver.{two.name}")

    assert raised.value.message == f"Catalog Error: view {one} reads itself: {one} → {two} → {three} → {one}"


async def test_a_view_reads_tables_and_nothing_else(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    for sql in ("from read_text('/etc/passwd')", "from 's3://rat/x.parquet'", "select 1; select 2"):
        view = named("silver")
        await merged_view(lake, on, view, sql)

        with pytest.raises(Invalid, match=f"View {view} cannot be read"):
            await query(f"from silver.{view.name}")


async def test_an_unknown_name_brings_views_that_may_have_been_meant(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    view = named("silver")
    await merged_view(lake, on, view)

    with pytest.raises(Invalid, match=f"Did you mean .*{view.name}"):
        await query(f"from silver.{view.name}x")


async def test_views_are_listed_and_described(query: Ask, bus: Bus, lake: Lakehouse, on: Catalogs) -> None:
    table, view = named("bronze"), named("gold")
    await merged(lake, on, table, 1, 2)
    columns = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "name", StringType()))
    await merged_view(lake, on, view, f"select n as id, 'x' as name from {full(table)}", columns)

    listed = (await bus.ask(ListTables(namespace=NAMESPACE, layer="gold", limit=200))).tables
    shown = await bus.ask(FindTable(**view._asdict()))
    preview, end = await taken(bus, lambda inbox: PreviewTable(**view._asdict(), limit=1, inbox=inbox))
    async with asking(bus, lambda inbox: ReadSchemas(inbox=inbox)) as answer:
        schemas = b"".join([chunk async for chunk in answer]).decode()

    [mine] = [one for one in listed if one.name == view.name]
    assert (mine.kind, mine.row_count, mine.size_bytes) == ("view", 0, 0)
    assert mine.updated_at is not None
    assert [(column.name, column.type) for column in shown.columns] == [("id", "BIGINT"), ("name", "VARCHAR")]
    assert (preview.column_names, preview.num_rows, end.truncated) == (["id", "name"], 1, True)
    assert view.name in schemas
    assert (await bus.ask(FindTable(**table._asdict()))).kind == "table"


async def test_a_table_that_cannot_be_read_tells_what_is_wrong_and_others_are_as_they_were(
    query: Ask, bus: Bus, lake: Lakehouse, on: Catalogs, objects: ObjectStore
) -> None:
    good, strange, broken = named("bronze"), named("bronze"), named("bronze")
    for table in (good, strange, broken):
        await merged(lake, on, table, 1, 2)
    await upgraded(lake, objects, strange, new_column="geography")
    await objects.put(await upgraded(lake, objects, broken, new_column="long"), b'{"format-version": 9}')

    listed = (await bus.ask(ListTables(namespace=NAMESPACE, layer="bronze", limit=200))).tables
    shown = {name: await bus.ask(FindTable(**name._asdict())) for name in (good, strange, broken)}
    async with asking(bus, lambda inbox: ReadSchemas(inbox=inbox)) as answer:
        schemas = b"".join([chunk async for chunk in answer]).decode()
    columns = await query(
        f"select table_name, column_name from information_schema.columns where table_catalog = '{NAMESPACE}'"
    )

    unknown = "DuckDB has no such type: column 'added' is geography"
    assert {one.name: one.problem for one in listed}.items() >= {(good.name, None), (strange.name, unknown)}
    assert [(one.name, one.type) for one in shown[strange].columns] == [("n", "BIGINT"), ("added", "geography")]
    assert (shown[strange].row_count, shown[good].row_count) == (2, 2)
    assert (shown[broken].columns, shown[broken].updated_at) == ([], None)
    assert (shown[broken].problem or "").startswith("its metadata cannot be understood: s3://")
    assert all(table.name in schemas for table in shown)
    assert {(good.name, "n"), (strange.name, "n"), (broken.name, "unreadable")} <= set(columns)
    with pytest.raises(Invalid, match="Geography"):
        await query(f"from bronze.{strange.name}")


async def test_show_tables_names_views_too(query: Ask, lake: Lakehouse, on: Catalogs) -> None:
    table, view, above = named("bronze"), named("gold"), named("gold")
    await merged(lake, on, table, 7)
    await merged_view(lake, on, view, f"from {full(table)}")
    await merged_view(lake, on, above, f"from {full(view)}")

    names = await query("select table_name from information_schema.tables", limit=10_000)
    read = await query(f"select n, (select count(*) > 0 from duckdb_tables()) from gold.{above.name}")

    assert {(table.name,), (view.name,), (above.name,)} <= set(names)
    assert read == [(7, True)]


async def test_a_view_of_another_engine_is_listed_and_not_read(
    query: Ask, bus: Bus, lake: Lakehouse, on: Catalogs
) -> None:
    view = named("gold")
    branch = await new_branch(lake)
    version = {
        "version-id": 1,
        "schema-id": 0,
        "default-namespace": [view.namespace, view.layer],
        "representations": [{"type": "sql", "sql": "select 1 n", "dialect": "spark"}],
    }
    columns = Schema(NestedField(1, "n", LongType(), required=False))
    await asyncio.to_thread(on(branch).create_view, tuple(view), columns, ViewVersion.model_validate(version))
    await lake.merge(branch, uuid4(), 1)

    assert (await bus.ask(FindTable(**view._asdict()))).kind == "view"
    with pytest.raises(Invalid, match=f"view {view} was made by another engine"):
        await query(f"from gold.{view.name}")
