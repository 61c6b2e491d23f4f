"""SQL over the tables on main: what it gives, what it refuses, and what it never shows."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from contracts.names import Qualified
from contracts.tables import PreviewTable, ResultEnd, RunSql
from infra.stacks.stack import Stack
from services.query.service import serve
from shared.bus import Bus
from shared.chunks import asking
from shared.errors import Invalid, NotFound, RatError, TimedOut
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.port import Lakehouse
from shared.object_store import object_store
from tests.buses import playing
from tests.waiting import eventually

Ask = Callable[..., Awaitable[tuple[pa.Table, ResultEnd]]]
NAMESPACE = "default"


@pytest.fixture(scope="module")
async def lake(stack: Stack) -> AsyncIterator[Lakehouse]:
    async with lakehouse(stack.settings, "runner") as lake:
        for layer in ("bronze", "silver", "gold"):
            await lake.ensure_namespace(NAMESPACE, layer)
        yield lake


@pytest.fixture(scope="module")
async def bus(stack: Stack) -> AsyncIterator[Bus]:
    bus = playing(stack.settings, "gateway")
    async with bus.running():
        yield bus


@pytest.fixture(scope="module")
async def query(stack: Stack, lake: Lakehouse, bus: Bus) -> AsyncIterator[Ask]:
    async def ask(sql: str, **more: Any) -> tuple[pa.Table, ResultEnd]:
        return await taken(bus, lambda inbox: RunSql(sql=sql, inbox=inbox, **more))

    async with serve(stack.settings.model_copy(update={"query_timeout_seconds": 6.0})):
        yield ask


async def taken(bus: Bus, question: Callable[[str], Any]) -> tuple[pa.Table, ResultEnd]:
    async with asking(bus, question) as answer:
        content = b"".join([chunk async for chunk in answer])
        end = await answer.end()
    return pa.ipc.open_stream(io.BytesIO(content)).read_all(), end


@pytest.fixture
async def merge(lake: Lakehouse, on: Callable[[str], Catalog]) -> Callable[..., Awaitable[None]]:
    """Put rows into a table on main, as a run does."""

    async def merge(table: Qualified, rows: pa.Table) -> None:
        branch = f"run-{uuid4()}-1"
        await lake.create_branch(branch)
        await asyncio.to_thread(write, on(branch), table, rows)
        await lake.merge(branch, uuid4(), 1)

    return merge


def write(catalog: Catalog, table: Qualified, rows: pa.Table) -> None:
    if catalog.table_exists(table):
        catalog.load_table(table).append(rows)
        return
    with catalog.create_table_transaction(table, rows.schema) as creation:
        creation.append(rows)


@pytest.fixture
def orders() -> Qualified:
    return Qualified(NAMESPACE, "bronze", f"orders_{uuid4().hex[:8]}")


ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", None, "c"]})


async def test_a_table_is_found_by_its_whole_name_as_it_stands(query, merge, orders):
    await merge(orders, ROWS)

    result, end = await query(f"select * from default.bronze.{orders.name} order by id")

    assert result.to_pydict() == ROWS.to_pydict()
    assert (end.total_rows, end.truncated) == (3, False)


async def test_a_name_of_two_parts_is_looked_for_in_the_namespace(query, merge, orders):
    await merge(orders, ROWS)

    result, _ = await query(f"select count(*) as n from Bronze.{orders.name.upper()}")
    with pytest.raises(Invalid, match="does not exist"):
        await query(f"select 1 from bronze.{orders.name}", namespace="elsewhere")

    assert result.to_pydict() == {"n": [3]}


async def test_what_was_just_merged_is_what_the_next_query_sees(query, merge, orders):
    for n in range(1, 6):
        await merge(orders, ROWS)
        result, _ = await query(f"select count(*) from default.bronze.{orders.name}")
        assert result[0].to_pylist() == [3 * n]


async def test_tables_are_joined_across_layers_and_in_subqueries(query, merge, orders):
    other = orders._replace(layer="gold")
    await merge(orders, ROWS)
    await merge(other, ROWS)

    result, _ = await query(
        f"""
        with ours as (select id from bronze.{orders.name})
        select count(*) from ours
        where id in (select id from gold.{other.name} where name is not null)
        """
    )

    assert result[0].to_pylist() == [2]


async def test_a_limit_cuts_and_says_so(query, merge, orders):
    await merge(orders, ROWS)

    cut, end = await query(f"from bronze.{orders.name}", limit=2)
    exact, exact_end = await query(f"from bronze.{orders.name}", limit=3)
    none, none_end = await query(f"from bronze.{orders.name}", limit=0)

    assert (cut.num_rows, end.total_rows, end.truncated) == (2, 2, True)
    assert (exact.num_rows, exact_end.truncated) == (3, False)
    assert (none.num_rows, none.schema.names, none_end.truncated) == (0, ["id", "name"], True)


async def test_a_result_larger_than_any_message_arrives_whole(query):
    result, end = await query("select i, repeat('x', 1000) as text from range(20000) t(i)", limit=20_000)

    assert end.total_rows == 20_000
    assert result["i"].to_pylist() == list(range(20_000))


async def test_an_endless_result_stops_at_the_limit(query):
    _, end = await query("select * from range(1000000000000)", limit=10)

    assert (end.total_rows, end.truncated) == (10, True)


async def test_columns_carry_the_types_of_duckdb(query):
    result, _ = await query("select sum(1::bigint) as a, 1.5::decimal(10,2) as a, [1] as l, {'k': 1} as s")

    types = [field.metadata[b"rat:type"].decode() for field in result.schema]
    assert result.schema.names == ["a", "a_1", "l", "s"]
    assert types == ["HUGEINT", "DECIMAL(10,2)", "INTEGER[]", "STRUCT(k INTEGER)"]
    assert result["a_1"].to_pylist() == [Decimal("1.50")]


@pytest.mark.parametrize(
    "sql",
    [
        "explain select * from default.bronze.{name}",
        "explain analyze select * from default.bronze.{name}",
        "explain (format json) select * from default.bronze.{name}",
        "explain (select * from default.bronze.{name}) union all values (1, 'x')",
        "/* why */ explain analyze -- so\n from default.bronze.{name}",
        "describe default.bronze.{name}",
        "describe select id from bronze.{name}",
        "summarize default.bronze.{name}",
        "show bronze.{name}",
        "show tables",
        "show all tables",
        "show tables from default.bronze",
        "from information_schema.tables",
        "select * from default.bronze.{name};",
        "values (1), (2)",
        "pivot bronze.{name} on name in ('a', 'c') using count(*)",
    ],
)
async def test_every_kind_of_reading_statement_runs(query, merge, orders, sql):
    await merge(orders, ROWS)

    result, _ = await query(sql.format(name=orders.name))

    assert result.num_rows > 0


async def test_show_tables_names_the_tables_of_the_namespace(query, merge, orders):
    await merge(orders, ROWS)

    result, _ = await query("show tables")
    described, _ = await query(
        f"select column_name, data_type from information_schema.columns where table_name = '{orders.name}'"
    )

    assert orders.name in result["name"].to_pylist()
    assert described.to_pylist() == [
        {"column_name": "id", "data_type": "BIGINT"},
        {"column_name": "name", "data_type": "VARCHAR"},
    ]


@pytest.mark.parametrize(
    ("sql", "message", "line", "column"),
    [
        ("selec 1", 'Parser Error: syntax error at or near "selec"', 1, 1),
        ("select 'é',\n  nope\nfrom default.bronze.{name}", 'Referenced column "nope" not found', 2, 3),
        ("select 1\nfrom default.bronze.nope", "Table with name default.bronze.nope does not exist", 2, 6),
        ("select order.id, default.x\nfrom bronze.{name} as order_", 'Referenced table "order" not found', 1, 8),
        ("select cast('x' as int)", "Could not convert string 'x'", 1, 8),
        ("explain select\n nope from default.bronze.{name}", 'Referenced column "nope" not found', 2, 2),
        ("select * from default.bronze.my-table", 'Names with "-" need double quotes', 1, 32),
        ("select * from default.silvr.{name}", "does not exist", 1, 15),
    ],
)
async def test_mistakes_are_told_by_duckdb_with_their_place_in_the_authors_text(
    query, merge, orders, sql, message, line, column
):
    await merge(orders, ROWS)

    with pytest.raises(Invalid) as raised:
        await query(sql.format(name=orders.name))

    assert message in raised.value.message
    assert f"LINE {line}: " in raised.value.message
    assert raised.value.details == {"line": line, "column": column}


async def test_an_unknown_table_brings_the_names_that_may_have_been_meant(query, merge, orders):
    await merge(orders, ROWS)

    with pytest.raises(Invalid, match=f"Did you mean .*{orders.name}"):
        await query(f"select * from default.bronze.{orders.name}x")


async def test_a_row_that_fails_late_is_an_error_of_the_query(query):
    with pytest.raises(Invalid, match="Could not convert"):
        await query("select (case when i < 90000 then '1' else 'x' end)::int from range(100000) t(i)", limit=100_000)


@pytest.mark.parametrize(
    "sql",
    [
        "create table t (a int)",
        "create view v as select 1",
        "insert into default.bronze.{name} values (1, 'x')",
        "delete from default.bronze.{name}",
        "drop table default.bronze.{name}",
        "drop view default.bronze.{name}",
        "update default.bronze.{name} set id = 1",
        "copy default.bronze.{name} to '/tmp/stolen.csv'",
        "copy (select 1) to 's3://rat/default/bronze/stolen.csv'",
        "attach '/tmp/stolen.db' as stolen",
        "attach 'postgres:' as pg",
        "install httpfs",
        "load '/tmp/evil.duckdb_extension'",
        "set enable_external_access = true",
        "set s3_access_key_id = 'x'",
        "reset lock_configuration",
        "pragma database_list",
        "pragma show_tables",
        "call pragma_version()",
        "checkpoint",
        "create secret (type s3)",
        "export database '/tmp/stolen'",
        "prepare p as select 1",
        "execute p",
        "begin",
        "use memory",
        "select 1; select 2",
        "select 1; drop table default.bronze.{name}",
        "select 1) as q; drop table default.bronze.{name} --",
        "explain analyze insert into default.bronze.{name} values (1, 'x')",
        "explain analyze copy (select 1) to '/tmp/stolen.csv'",
        "explain (analyze) insert into default.bronze.{name} values (1, 'x')",
        "explain verbose delete from default.bronze.{name}",
        "explain (format json) values (1); values (2)",
        "explain create table t as (select 1)",
        "explain",
        "explain explain select 1",
        "",
        ";",
        "-- nothing",
        "with t as (insert into default.bronze.{name} values (1, 'x') returning *) select * from t",
    ],
)
async def test_what_is_not_one_reading_statement_is_refused(query, merge, orders, sql):
    await merge(orders, ROWS)

    with pytest.raises((Invalid, ValueError)):
        await query(sql.format(name=orders.name))

    result, _ = await query(f"select count(*) from bronze.{orders.name}")
    assert result[0].to_pylist() == [3]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from '/etc/passwd'",
        'select * from "/etc/passwd"',
        "select * from read_csv('/etc/passwd')",
        "select * from read_csv_auto('/etc/passwd')",
        "select * from read_text('/etc/hostname')",
        "select * from read_blob('/proc/self/environ')",
        "select * from system.main.read_text('/etc/hostname')",
        "select * from glob('/etc/*')",
        "select * from sniff_csv('/etc/passwd')",
        "select * from parquet_metadata('s3://rat/default/bronze/x.parquet')",
        "select * from 's3://rat/{folder}/landing/zone/secret.csv'",
        "select * from read_csv('s3://rat/{folder}/landing/zone/secret.csv')",
        "select * from read_text('s3://rat/{folder}/pipelines/bronze/p/pipeline.sql')",
        "select * from read_text('s3://rat/{folder}/bronze/../landing/zone/secret.csv')",
        "select * from read_text('s3://rat/**')",
        "select * from glob('s3://rat/**')",
        'select * from "s3://rat/{folder}/landing/zone/secret".csv',
        'select * from "s3://rat/{folder}/landing/zone"."secret".csv',
        'with "s3://rat/default/landing/zone/secret.csv" as (select 1) select * from "s3://rat/{folder}/landing/a.csv"',
        "select * from iceberg_scan('s3://rat/{folder}/bronze/x')",
        "select * from query('select 1')",
        "select * from query_table('secret.csv')",
        "select * from json_execute_serialized_sql('{{}}')",
        "select * from duckdb_secrets()",
        "select * from duckdb_settings()",
        "select * from which_secret('s3://rat/x', 's3')",
        "select * from http_get('http://127.0.0.1')",
        "select * from 'http://127.0.0.1:1/a.csv'",
        "select getenv('RAT_S3_KEYS')",
        "select * from settings",
        "select * from database",
        "describe '/etc/passwd'",
        "summarize 's3://rat/{folder}/landing/zone/secret.csv'",
        "explain select * from read_csv('/etc/passwd')",
        "select (select content from read_text('/etc/hostname'))",
        "select * from range(1), lateral (select * from read_text('/etc/hostname'))",
        "select 1 where exists (from read_text('/etc/hostname'))",
        "select 1 order by (select content from read_text('/etc/hostname'))",
        "select 1 limit (select 1 from read_text('/etc/hostname'))",
        "pivot (from read_text('/etc/hostname')) on filename in ('a') using count(*)",
        "select sum(1) filter (where exists (from read_text('/etc/hostname')))",
        "values ((select content from read_text('/etc/hostname')))",
        "select 1 union all select content from read_text('/etc/hostname')",
        "with recursive t as (select content from read_text('/etc/hostname')) from t",
        "select * from pandas_scan(1)",
        "select * from arrow_scan(1, 2, 3)",
        "select * from enable_logging()",
        "select * from histogram('/etc/passwd', 'x')",
    ],
)
async def test_nothing_is_read_but_tables(query, stack, sql):
    folder = f"n{uuid4().hex[:8]}"
    async with object_store(stack.settings, "infra") as objects:
        await objects.put(f"{folder}/landing/zone/secret.csv", b"secret\n42\n")
        await objects.put(f"{folder}/pipelines/bronze/p/pipeline.sql", b"select 42")

    with pytest.raises(RatError) as raised:
        await query(sql.format(folder=folder))

    assert isinstance(raised.value, Invalid)
    assert stack.settings.s3_key("query").secret_access_key.get_secret_value() not in raised.value.message


@pytest.mark.parametrize("name", ["s3_secret_access_key", "s3_access_key_id", "s3_session_token"])
async def test_settings_show_no_secret(query, stack, name):
    secrets = stack.settings.s3_key("query")
    try:
        result, _ = await query(f"select current_setting('{name}') as v")
    except Invalid:
        return

    assert result["v"].to_pylist()[0] not in (secrets.access_key_id, secrets.secret_access_key.get_secret_value())


async def test_a_query_that_works_too_long_is_ended_and_the_next_one_runs(query):
    with pytest.raises(TimedOut, match="longer than 6 s"):
        await query("select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3")

    result, _ = await query("select 42 as answer")
    assert result.to_pydict() == {"answer": [42]}


async def test_many_queries_at_once_each_get_their_own_rows(query):
    answers = await asyncio.gather(*(query(f"select {n} as n from range(100)") for n in range(24)))

    assert [set(result["n"].to_pylist()) for result, _ in answers] == [{n} for n in range(24)]


async def test_an_asker_that_leaves_does_not_keep_a_worker(query, bus):
    for _ in range(6):
        endless = "select i, repeat('x', 1000) from range(10000000) t(i)"
        async with asking(bus, lambda inbox, sql=endless: RunSql(sql=sql, limit=10_000_000, inbox=inbox)) as answer:
            async for _chunk in answer:
                break

    result, _ = await eventually(lambda: query("select 1 as one"))
    assert result.to_pydict() == {"one": [1]}


async def test_a_preview_gives_the_first_rows(query, bus, merge, orders):
    await merge(orders, ROWS)
    parts = orders._asdict()

    result, end = await taken(bus, lambda inbox: PreviewTable(**parts, limit=2, inbox=inbox))
    with pytest.raises(NotFound):
        await taken(bus, lambda inbox: PreviewTable(**(parts | {"name": "nope"}), inbox=inbox))

    assert (result.num_rows, end.truncated) == (2, True)


async def test_an_earlier_snapshot_and_a_branch_can_be_read(query, lake, on, merge, orders):
    await merge(orders, ROWS)
    snapshot = await lake.head()
    await merge(orders, ROWS)
    branch = f"run-{uuid4()}-1"
    await lake.create_branch(branch)
    await asyncio.to_thread(write, on(branch), orders, ROWS)
    sql = f"select count(*) from bronze.{orders.name}"

    counts = [(await query(sql, **at))[0][0].to_pylist() for at in ({"snapshot": snapshot}, {}, {"branch": branch})]

    assert counts == [[3], [6], [9]]
    with pytest.raises(NotFound, match="no branch or snapshot 'nope'"):
        await query(sql, branch="nope")
