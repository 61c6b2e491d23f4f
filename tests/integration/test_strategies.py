"""Each merge strategy does to a table what `pipelines.md` says, file by file, over the real store and catalog."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyiceberg.partitioning import partition_record_value
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from infra.stacks.stack import Stack
from services.runner.config import PartitionField, SchemaChange
from services.runner.domain import FailureKind
from services.runner.problems import AuthorError, WorkFailed
from tests.deleted_rows import delete_rows
from tests.writing import NewTable, WrittenTable, written_tables


@pytest.fixture(scope="module")
async def new_table(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NewTable]:
    async with written_tables(stack.settings, tmp_path_factory.mktemp("spill")) as new_table:
        yield new_table


@pytest.fixture
def table(new_table: NewTable) -> WrittenTable:
    return new_table()


def values(*rows: str, names: str = "id, x") -> str:
    return f"from (values {', '.join(rows)}) v({names})"


def test_full_refresh_leaves_the_new_rows_only_also_when_there_are_none(table: WrittenTable) -> None:
    assert table.write(values("(1, 'a')", "(2, 'b')")).rows == 2
    assert table.write(values("(3, 'c')")).rows == 1
    assert table.query("from t") == [(3, "c")]

    emptied = table.write("select 1 as id, 'a' as x where false")

    assert (emptied.rows, emptied.has_changed) == (0, True)
    assert table.query("from t") == []


def test_append_only_adds_rows_and_nothing_where_there_are_none(table: WrittenTable) -> None:
    table.write(values("(1, 'a')"), "append_only")
    assert table.write(values("(1, 'a')"), "append_only").rows == 1
    assert table.query("from t") == [(1, "a"), (1, "a")]
    before = table.table.metadata_location

    nothing = table.write("select 1 as id, 'a' as x where false", "append_only")

    assert (nothing.rows, nothing.has_changed, nothing.location) == (0, False, before)
    assert table.table.metadata_location == before


def test_incremental_replaces_rows_by_key_and_adds_the_others(table: WrittenTable) -> None:
    table.write(values("(1, 'a')", "(2, 'b')", "(null, 'n')"), "incremental", unique_key=("id",))

    written = table.write(values("(2, 'B')", "(null, 'N')", "(3, 'c')"), "incremental", unique_key=("ID",))

    assert written.rows == 3
    assert table.query("from t order by id") == [(1, "a"), (2, "B"), (3, "c"), (None, "N")]


def test_incremental_takes_the_last_of_several_rows_of_a_key(table: WrittenTable) -> None:
    rows = values("(1, 5, 'late')", "(1, 3, 'early')", "(null, null, 'a')", "(null, null, 'b')", names="id, seen, x")

    by_position = table.write(rows, "incremental", unique_key=("id",))
    assert by_position.rows == 2
    assert table.query("select id, x from t order by id") == [(1, "early"), (None, "b")]

    table.write(rows, "incremental", unique_key=("id",), watermark_column="seen")
    assert table.query("select id, x from t order by id") == [(1, "late"), (None, "b")]

    nulls = values("(1, 9, 'known')", "(1, null, 'unknown')", names="id, seen, x")
    table.write(nulls, "incremental", unique_key=("id",), watermark_column="seen")
    assert table.query("select x from t where id = 1") == [("known",)]


def test_delete_insert_lets_all_new_rows_in(table: WrittenTable) -> None:
    table.write(values("(1, 'a')", "(2, 'b')", "(2, 'c')"), "delete_insert", unique_key=("id",))
    assert table.query("from t order by id, x") == [(1, "a"), (2, "b"), (2, "c")]

    written = table.write(values("(2, 'd')", "(2, 'd')"), "delete_insert", unique_key=("id",))

    assert written.rows == 2
    assert table.query("from t order by id, x") == [(1, "a"), (2, "d"), (2, "d")]


def test_snapshot_replaces_the_partitions_that_occur(table: WrittenTable) -> None:
    table.write(values("('mon', 1)", "('tue', 2)", "(null, 3)", names="day, x"), "snapshot", partition_column="day")

    written = table.write(
        values("('tue', 4)", "('tue', 5)", "(null, 6)", names="day, x"), "snapshot", partition_column="day"
    )

    assert written.rows == 3
    assert table.query("from t order by x") == [("mon", 1), ("tue", 4), ("tue", 5), (None, 6)]


def test_scd2_keeps_history(table: WrittenTable) -> None:
    def run(*rows: str, **config: bool) -> int:
        return table.write(values(*rows), "scd2", unique_key=("id",), **config).rows

    def history() -> list[tuple[object, ...]]:
        hour = "(epoch({}) - epoch(timestamptz '2026-01-01 00:00:00+00'))::int // 3600"
        return table.query(
            f"select id, x, {hour.format('valid_from')}, {hour.format('valid_to')}, is_current from t order by 1, 3"
        )

    assert run("(1, 'a')", "(2, 'b')", "(null, 'n')") == 3
    assert history() == [(1, "a", 0, None, True), (2, "b", 0, None, True), (None, "n", 0, None, True)]

    before = table.table.metadata_location
    assert run("(1, 'a')", "(2, 'b')", "(null, 'n')") == 0
    assert table.table.metadata_location == before

    # One row is closed and one opened for each of two keys, and one opened for a third.
    assert run("(1, 'A')", "(null, null)", "(3, 'c')") == 5
    assert history() == [
        (1, "a", 0, 2, False),
        (1, "A", 2, None, True),
        (2, "b", 0, None, True),
        (3, "c", 2, None, True),
        (None, "n", 0, 2, False),
        (None, None, 2, None, True),
    ]

    assert run("(1, 'A')", "(3, 'c')", close_missing=True) == 2
    assert [row for row in history() if row[4]] == [(1, "A", 2, None, True), (3, "c", 2, None, True)]


def test_only_files_that_hold_touched_rows_are_rewritten(table: WrittenTable) -> None:
    for start in (0, 100, 200):
        sql = f"select x::bigint as id, 'a' as x, [x] as l from range({start}, {start + 100}) r(x)"
        table.write(sql, "append_only")
    before = table.files()

    table.write("select 150 as id, 'b' as x", "incremental", unique_key=("id",))

    after = table.files()
    assert len(before - after) == 1
    assert len(after - before) == 1
    assert table.query("select count(*), count(distinct id), count(*) filter (x = 'b') from t") == [(300, 300, 1)]


def test_a_query_sees_its_table_as_it_was(table: WrittenTable) -> None:
    table.write(values("(1, 10)", "(2, 20)"), "incremental", unique_key=("id",))

    table.write("select id + 1 as id, x + 1 as x from $this", "incremental", unique_key=("id",))

    assert table.query("from t order by id") == [(1, 10), (2, 11), (3, 21)]


@pytest.mark.parametrize("strategy", ["incremental", "delete_insert", "scd2", "snapshot"])
def test_any_name_is_a_columns_name(table: WrittenTable, strategy: str) -> None:
    names = ['"select"', '"two words"', '"it\'s ""quoted"""', '"file"', '"file_row_number"', '"partition0"', '"rowid"']
    columns = ", ".join(f"x::int as {name}" for name in names)
    key = ("select", 'it\'s "quoted"', "file", "file_row_number", "rowid")
    config = {"unique_key": key, "partition_column": 'it\'s "quoted"', "partition_by": (PartitionField("two words"),)}

    for start in (0, 1):
        table.write(f"select {columns} from range({start}, {start + 2}) r(x)", strategy, **config)

    assert table.query(f"select {', '.join(names)} from t order by 1") == [(x,) * len(names) for x in range(3)]


def test_columns_are_added_widened_and_missed(table: WrittenTable) -> None:
    table.write("select 1::int as id, 1::float as f, 'a' as gone", "incremental", unique_key=("id",))

    table.write("select 2::bigint as ID, 2::double as f, {'x': 1} as s", "incremental", unique_key=("id",))
    table.write("select 1 as id, {'x': 3::bigint, 'y': 'z'} as s", "incremental", unique_key=("id",))

    rows = table.query("select id, f, gone, s from t order by id")
    assert rows == [(1, None, None, {"x": 3, "y": "z"}), (2, 2.0, None, {"x": 1, "y": None})]


@pytest.mark.parametrize("on_schema_change", ["evolve", "fail"])
def test_null_without_a_type_fits_any_column(table: WrittenTable, on_schema_change: str) -> None:
    table.write("select 1 as id, 'a' as x, now() as ts, ['a'] as list", "append_only")

    table.write(
        "select 2 as id, null as X, null as ts, [] as list",
        "append_only",
        on_schema_change=SchemaChange(on_schema_change),
    )
    with pytest.raises(WorkFailed, match="column 'x' is string in the table and int"):
        table.write("select 3 as id, 4 as x", "append_only")

    assert table.query("select x, ts is null, list from t order by id") == [("a", False, ["a"]), (None, True, [])]


def test_a_change_that_iceberg_does_not_allow_names_both_types(table: WrittenTable) -> None:
    table.write("select 'a' as id, [{'x': 1}] as l")

    with pytest.raises(WorkFailed, match=r"'id' is string in the table and int \(INTEGER\) in the query") as failed:
        table.write("select 1 as id", "append_only")
    assert failed.value.kind is FailureKind.SCHEMA
    with pytest.raises(WorkFailed, match="'l' is list<struct<x: int>> in the table and list<struct<x: string>>"):
        table.write("select 'a' as id, [{'x': 'a'}] as l")


def test_fail_lets_no_column_change(table: WrittenTable) -> None:
    table.write("select 1 as id, 'a' as x")

    for sql, said in (
        ("select 1 as id, 'a' as x, 2 as y", r"'y' \(int\) is not in the table"),
        ("select 1::bigint as id, 'a' as x", "'id' is int in the table and long in the query"),
        ("select 1 as id", r"'x' \(string\) is not in the query"),
    ):
        with pytest.raises(WorkFailed, match=said):
            table.write(sql, on_schema_change=SchemaChange.FAIL)
    assert table.write("select 2::tinyint as ID, 'b' as x", on_schema_change=SchemaChange.FAIL).rows == 1
    assert table.query("from t") == [(2, "b")]


def test_replace_makes_the_columns_those_of_the_query(table: WrittenTable) -> None:
    table.write("select 1 as id, 'a' as x, 1::bigint as n", partition_by=(PartitionField("x"), PartitionField("n")))

    table.write("select date '2026-01-01' as x, 2 as id", on_schema_change=SchemaChange.REPLACE)

    assert [(f.name, str(f.field_type)) for f in table.table.schema().fields] == [("x", "date"), ("id", "int")]
    assert table.query("select x::varchar, id from t") == [("2026-01-01", 2)]


def test_a_key_that_the_query_does_not_give_is_named(table: WrittenTable) -> None:
    for key, config in {
        "unique_key": {"strategy": "incremental", "unique_key": ("idd",)},
        "partition_column": {"strategy": "snapshot", "partition_column": "idd"},
        "partition_by": {"partition_by": (PartitionField("idd"),)},
        "watermark_column": {"strategy": "incremental", "unique_key": ("id",), "watermark_column": "idd"},
    }.items():
        with pytest.raises(AuthorError, match=f"{key} names 'idd', which the query does not give, did you mean 'id'"):
            table.write("select 1 as id", **config)
    with pytest.raises(WorkFailed, match="partition_by: column 'id' is string, which cannot be partitioned by day"):
        table.write("select 'a' as id", partition_by=(PartitionField("id", "day"),))
    with pytest.raises(WorkFailed, match="scd2 keeps a column 'is_current' of its own, and the query gives one too"):
        table.write("select 1 as id, true as IS_current", "scd2", unique_key=("id",))


ROWS = """
select x::int as id, 'name ' || x % 3 as "two words", timestamptz '1969-12-31 22:00:00+00' + interval (x) hours as seen,
  (x / 4 - 1)::decimal(9, 2) as amount
from range({}) r(x) union all select null, null, null, null
"""

PARTITIONS = (
    PartitionField("id", "bucket[3]"),
    PartitionField("two words", "truncate[6]"),
    PartitionField("seen", "day"),
    PartitionField("AMOUNT", "truncate[100]"),
)


def test_each_file_holds_one_partition_as_stock_pyiceberg_has_it(table: WrittenTable) -> None:
    table.write(ROWS.format(6), partition_by=PARTITIONS)

    found = Counter[str]()
    for task in table.table.scan().plan_files():
        found[path_of(table.table, task.file.partition)] += task.file.record_count
    assert found == Counter(path_of(table.table, partition_of(table.table, row)) for row in stock_rows(table.table))
    assert len(found) > 3
    for wanted in (
        "id = 3",
        "\"two words\" = 'name 1'",
        "seen < timestamptz '1970-01-01T00:00:00+00:00'",
        "id is null",
    ):
        found = table.table.scan(row_filter=wanted.replace("timestamptz ", "")).to_arrow()
        assert sorted(found["id"].to_pylist(), key=str) == [
            row[0] for row in table.query(f"select id from t where {wanted} order by id::varchar nulls last")
        ]


def stock_rows(table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.scan().to_arrow().to_pylist()
    return rows


def partition_of(table: Table, row: dict[str, Any]) -> Record:
    """The partition that stock PyIceberg has for a row."""
    schema, values = table.schema(), []
    for field in table.spec().fields:
        source = schema.find_field(field.source_id)
        value = partition_record_value(field, row[source.name], schema)
        values.append(field.transform.transform(source.field_type)(value))
    return Record(*values)


def path_of(table: Table, partition: Record) -> str:
    return table.spec().partition_to_path(partition, table.schema())


def test_a_new_partitioning_is_for_new_files_and_old_ones_are_read_as_before(table: WrittenTable) -> None:
    key = {"unique_key": ("id",)}
    table.write(ROWS.format(6), "incremental", **key)
    table.write(ROWS.format(6), "incremental", partition_by=PARTITIONS, **key)
    table.write("select 1 as id, 'new' as \"two words\"", "incremental", partition_by=(PartitionField("id"),), **key)
    old = {task.file.spec_id for task in table.table.scan().plan_files()}

    assert len(old) == 2
    rows = table.query("select count(*), count(distinct id), count(*) filter (\"two words\" = 'new') from t")
    assert rows == [(7, 6, 1)]
    assert table.table.scan(row_filter="id == 1").to_arrow()["two words"].to_pylist() == ["new"]


def test_only_partitions_that_keys_are_in_are_read(table: WrittenTable) -> None:
    by_day = {"partition_column": "day", "partition_by": (PartitionField("day"),)}
    table.write("select date '2026-01-01' + (x % 3)::int as day, x from range(9) r(x)", "snapshot", **by_day)
    before = table.files()

    written = table.write("select date '2026-01-02' as day, 99 as x", "snapshot", **by_day)

    assert (written.rows, written.files) == (1, 1)
    assert len(before & table.files()) == 2
    assert table.query("select count(*), max(x) from t") == [(7, 99)]


def test_a_table_without_history_begins_one(table: WrittenTable) -> None:
    table.write(values("(1, 'a')", "(2, 'b')"), "append_only")

    written = table.write(values("(1, 'A')", "(3, 'c')"), "scd2", unique_key=("id",))

    assert written.rows == 3
    rows = table.query("select id, x, valid_from is null, valid_to is null, is_current from t order by id, 5")
    assert rows == [
        (1, "a", True, False, False),
        (1, "A", False, True, True),
        (2, "b", True, True, True),
        (3, "c", False, True, True),
    ]


# Rows that another engine has deleted

OTHERS = {(1, "a"), (3, "c"), (9, "new")}


@pytest.mark.parametrize(
    ("strategy", "left"),
    [
        ("full_refresh", {(9, "new")}),
        ("append_only", OTHERS),
        ("incremental", OTHERS),
        ("delete_insert", OTHERS),
        ("snapshot", OTHERS),
    ],
)
@pytest.mark.parametrize("partitions", [(), (PartitionField("x", "identity"),)], ids=["whole", "partitioned"])
def test_rows_that_another_engine_deleted_stay_away(
    table: WrittenTable, strategy: str, left: set[tuple[int, str]], partitions: tuple[PartitionField, ...]
) -> None:
    config = {"unique_key": ("id",), "partition_column": "x", "partition_by": partitions}
    table.write(values("(1, 'a')", "(2, 'b')", "(3, 'c')"), **config)
    delete_as_another_engine(table, "id = 2")
    assert set(table.query("from t")) == {(1, "a"), (3, "c")}

    table.write(values("(9, 'new')"), strategy, **config)

    assert set(table.query("from t")) == left
    assert {tuple(row.values()) for row in table.table.scan().to_arrow().to_pylist()} == left
    assert [warning.partition(":")[0] for warning in table.warnings] == [
        "another engine has deleted rows beside this table's files"
    ]
    # What comes after finds an ordinary table.
    table.write(values("(9, 'newer')"), "incremental", **config)
    assert len(table.warnings) == 1
    assert (9, "newer") in table.query("from t")


def test_history_goes_on_after_another_engine_has_deleted_rows(table: WrittenTable) -> None:
    table.write(values("(1, 'a')", "(2, 'b')"), "scd2", unique_key=("id",))
    delete_as_another_engine(table, "id = 2")

    table.write(values("(1, 'A')"), "scd2", unique_key=("id",))

    assert sorted(table.query("select id, x, is_current from t")) == [(1, "A", True), (1, "a", False)]


def delete_as_another_engine(table: WrittenTable, condition: str) -> None:
    files = ", ".join(f"'{file}'" for file in table.files())
    rows = f"read_parquet([{files}], filename = 'file', file_row_number = true, hive_partitioning = false)"
    for file, place in table.connection.execute(
        f"select file, file_row_number from {rows} where {condition}"
    ).fetchall():
        delete_rows(table.catalog, table.table, file, place)


@pytest.mark.parametrize("strategy", ["incremental", "delete_insert", "scd2"])
def test_a_file_of_another_engine_without_field_ids_is_never_read_as_nulls(table: WrittenTable, strategy: str) -> None:
    table.write("select 1::bigint as id, 'a' as x", strategy, unique_key=("id",))
    columns = "i::bigint as id, 'b' as x"
    if strategy == "scd2":
        columns += ", now() as valid_from, null::timestamptz as valid_to, true as is_current"
    place = f"{table.table.location()}/data/added.parquet"
    table.connection.execute(f"copy (select {columns} from range(2, 5) r(i)) to '{place}' (format parquet)")
    table.table.add_files([place])

    with pytest.raises(WorkFailed, match="no field ids") as failed:
        table.write("select 3::bigint as id, 'c' as x", strategy, unique_key=("id",))

    assert failed.value.kind is FailureKind.SCHEMA
    assert str(table.name) in str(failed.value)
    assert place in str(failed.value)
    assert table.query("select id from t order by id") == [(1,), (2,), (3,), (4,)]
    table.write("select 3::bigint as id, 'c' as x")
    assert table.write("select 3::bigint as id, 'd' as x", "incremental", unique_key=("id",)).rows == 1
