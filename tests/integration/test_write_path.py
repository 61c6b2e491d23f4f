"""Tables that our own commits write are read the same by DuckDB, PyIceberg and Polars, and written on by PyIceberg."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import duckdb
import polars
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import EqualTo, GreaterThanOrEqual
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Table
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import IntegerType, NestedField, StringType

from contracts.names import Qualified
from infra.stacks.stack import Stack
from services.runner.config import PartitionField as By
from services.runner.config import Strategy
from services.runner.engine.parquet import LARGEST_FILE, Copy
from services.runner.engine.partitions import column
from services.runner.engine.schema import columns_of, duckdb_type, field_of, schema_of
from services.runner.engine.session import open_connection
from services.runner.engine.statement import identifier
from services.runner.target import Target
from shared.errors import Conflict, Unavailable
from shared.lakehouse.branch_catalog import SNAPSHOTS_KEPT, BranchCatalog
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.commit import Commit, Committed, change
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.files import TableFiles, s3_properties
from shared.lakehouse.port import BranchClosed, Lakehouse
from tests.stacks import StackIn
from tests.tables import new_branch, new_table

EVERY_TYPE = """
select x::int - 5 as a_int, x * 10000000000 as a_long, (x / 7)::float as a_float, (x / 7)::double as a_double,
  (x * 1.5)::decimal(9, 2) as a_decimal, (x * 1.5 - 9)::decimal(18, 3) as b_decimal,
  (x * 1.5)::decimal(38, 5) as c_decimal,
  'näme' || x as a_string, repeat('zä', x::int * 30) as a_long_string, md5('' || x)::uuid as a_uuid,
  ('\\xFF\\xFE' || x)::blob as a_blob, date '1950-01-01' + x::int as a_date,
  time '00:00:00.000001' + interval (x) seconds as a_time,
  timestamp '1960-01-01 00:00:00.123456' + interval (x) hours as a_timestamp,
  timestamptz '2020-01-01 00:00:00.1+00' + interval (x) minutes as a_timestamptz,
  x % 2 = 0 as a_boolean, null::int as nothing, null::varchar[] as no_list, if(x % 3 = 0, x, null) as a_third,
  if(x = 7, 'nan'::double, x) as a_nan, if(x = 0, '-0.0'::double, 0.0::double) as a_zero,
  if(x = 1, 'infinity', if(x = 2, '-infinity', '1'))::float as an_infinity, '' as an_empty_string,
  if(x = 2, null, {'in': x, 'do.t': 'a' || x, 'deep': {'er': [x]}}) as a_struct,
  if(x = 3, null, [x, null, x + 1]) as a_list, [[], ['a'], null] as lists, x as "od.d ""name", x as "select"
from range(10) t(x)
"""


_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Writing:
    """A table on a branch, written by commits of ours."""

    engine: duckdb.DuckDBPyConnection
    catalog: BranchCatalog
    name: Qualified
    pipeline_id: UUID = field(default_factory=uuid4)

    def write(self, sql: str, *partitions: By, instead: bool = False) -> Committed:
        """Add the rows of a query, instead of all that there are if so asked."""
        commit = self.begin(sql, *partitions)
        return commit.finish(self.files(commit, sql), commit.files() if instead else [])

    def begin(self, sql: str, *partitions: By) -> Commit:
        location = self.table.metadata_location if self.catalog.table_exists(self.name) else None
        target = Target(self.catalog, self.name, self.pipeline_id, uuid4(), location)
        schema = schema_of(columns_of(self.engine, f"({sql})"))
        return target.begin(target.load(Strategy.APPEND_ONLY), schema, partitions)

    def files(self, commit: Commit, sql: str, file_bytes: int = LARGEST_FILE) -> list[DataFile]:
        """Write the rows of a query; columns that it does not give are null."""
        values = dict.fromkeys(commit.schema.field_ids, "null")
        for given in columns_of(self.engine, f"({sql})"):
            field = field_of(commit.schema, given.name)
            assert field is not None
            values[field.field_id] = identifier(given.name)
        columns = ", ".join(
            f"{values[field.field_id]}::{duckdb_type(field.field_type)} as {column(field.field_id)}"
            for field in commit.schema.fields
        )
        return Copy(commit, self.engine, file_bytes=file_bytes).run(f"select {columns} from ({sql})")

    @property
    def table(self) -> Table:
        return self.catalog.load_table(tuple(self.name))


@pytest.fixture(scope="module")
def engine(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    spill = str(tmp_path_factory.mktemp("spill"))
    with open_connection(stack.settings, threads=2, spill_directory=spill) as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


@pytest.fixture
def writing(engine: duckdb.DuckDBPyConnection, on: Callable[[str], BranchCatalog], branch: str) -> Writing:
    return Writing(engine, on(branch), new_table())


class Readers:
    """What a table holds, as engines read it that know nothing of us, from its metadata file alone."""

    def __init__(self, stack: Stack, engine: duckdb.DuckDBPyConnection) -> None:
        self._properties = s3_properties(stack.settings, "query")
        self._engine = engine

    def duckdb(self, location: str) -> list[tuple[Any, ...]]:
        return rows_of(self._engine, f"from iceberg_scan('{location}')")

    def pyiceberg(self, location: str) -> list[tuple[Any, ...]]:
        found = StaticTable.from_metadata(location, self._properties).scan().to_arrow()
        return [tuple(row.values()) for row in found.to_pylist()]

    def polars(self, location: str) -> list[tuple[Any, ...]]:
        return polars.scan_iceberg(location, storage_options=self._properties).collect().rows()

    def all_read(self, location: str, expected: Sequence[tuple[Any, ...]]) -> None:
        """All three read these rows, in whatever order."""
        for read in (self.duckdb, self.pyiceberg, self.polars):
            assert plain(read(location)) == plain(expected), read.__name__


@pytest.fixture
def readers(stack: Stack, engine: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> Readers:
    # Polars' own planner does not read each of these types; its reader does.
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    return Readers(stack, engine)


def rows_of(engine: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """What a query gives, as Python sees it by way of Arrow: a map is a list of pairs."""
    return [tuple(row.values()) for row in engine.execute(sql).to_arrow_table().to_pylist()]


def plain(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Rows in one order, their values as texts that are the same for all engines."""
    return sorted(repr(tuple(_plain(value) for value in row)) for row in rows)


def _plain(value: Any) -> Any:
    match value:
        case UUID():
            return value.bytes
        case str() if _UUID.fullmatch(value):
            return UUID(value).bytes
        case datetime() if value.tzinfo is not None:
            return value.timestamp()
        case float() if value == 0:
            # DuckDB's dictionaries in Parquet do not tell -0.0 from 0.0.
            return 0.0
        case bytearray() | memoryview():
            return bytes(value)
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value


# What is read


def test_every_type_is_read_the_same_by_all(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection
) -> None:
    expected = rows_of(engine, EVERY_TYPE)

    committed = writing.write(EVERY_TYPE)

    readers.all_read(committed.location, expected)


def test_maps_are_read_the_same(writing: Writing, readers: Readers) -> None:
    sql = "select x, map {'k' || x: [x], 'l': null} as m, if(x = 1, null, map {x: {'a': x}}) as n from range(3) t(x)"

    committed = writing.write(sql)

    pairs = [(x, [(f"k{x}", [x]), ("l", None)], None if x == 1 else [(x, {"a": x})]) for x in range(3)]
    assert plain(readers.duckdb(committed.location)) == plain(pairs)
    dicts = [tuple(dict(value) if isinstance(value, list) else value for value in row) for row in pairs]
    assert plain(readers.polars(committed.location)) == plain(dicts)
    # PyIceberg reads a map that is null as an empty one.
    pairs[1] = (*pairs[1][:2], [])
    assert plain(readers.pyiceberg(committed.location)) == plain(pairs)


def test_pyiceberg_appends_to_overwrites_and_changes_what_we_wrote(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection
) -> None:
    writing.write(EVERY_TYPE)
    more = writing.table.scan().to_arrow()

    writing.table.append(more)
    expected = rows_of(engine, EVERY_TYPE)
    readers.all_read(writing.table.metadata_location, expected * 2)
    writing.write(EVERY_TYPE)
    readers.all_read(writing.table.metadata_location, expected * 3)

    writing.table.delete(EqualTo("a_int", -5))
    readers.all_read(writing.table.metadata_location, [row for row in expected if row[0] != -5] * 3)
    with writing.table.update_schema() as update:
        update.rename_column("a_int", "renamed")
        update.add_column("added", StringType())
    again = writing.write(EVERY_TYPE.replace("a_int", "renamed").replace("select", "select 'new' as added,", 1))
    added = engine.execute(f"select added, count(*) from iceberg_scan('{again.location}') group by all").fetchall()
    assert sorted(added, key=repr) == [("new", 10), (None, 27)]


def test_a_column_of_nulls_alone_and_a_result_without_rows(writing: Writing, readers: Readers) -> None:
    nothing = "select x, null::varchar as y from range(3) t(x) where {}"

    empty = writing.write(nothing.format("false"))
    assert (empty.has_changed, writing.table.current_snapshot()) == (True, None)
    readers.all_read(empty.location, [])

    full = writing.write(nothing.format("true"))
    readers.all_read(full.location, [(0, None), (1, None), (2, None)])

    again = writing.write(nothing.format("false"), instead=True)
    readers.all_read(again.location, [])
    assert again.has_changed

    assert writing.write(nothing.format("false"), instead=True) == Committed(again.location, has_changed=False)


# What readers leave out by statistics


@pytest.mark.parametrize(
    ("column", "value", "literal"),
    [
        ("a_int", -5, "-5"),
        ("a_long", 90000000000, "90000000000"),
        ("a_decimal", Decimal("13.50"), "13.50"),
        ("a_string", "näme9", "'näme9'"),
        ("a_long_string", "zä" * 270, "repeat('zä', 270)"),
        ("a_date", "1950-01-10", "date '1950-01-10'"),
        ("a_timestamp", "1960-01-01T09:00:00.123456", "timestamp '1960-01-01 09:00:00.123456'"),
        ("a_zero", 0.0, "0.0"),
        ("a_zero", -0.0, "-0.0"),
        ("a_nan", 9.0, "9.0"),
        ("an_infinity", 1.0, "1"),
    ],
)
def test_no_file_is_left_out_that_has_a_row(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection, column: str, value: Any, literal: str
) -> None:
    committed = writing.write(EVERY_TYPE)
    wanted = engine.execute(f"select count(*) from ({EVERY_TYPE}) where {column} = {literal}").fetchone()

    found = engine.execute(f"select count(*) from iceberg_scan('{committed.location}') where {column} = {literal}")

    assert found.fetchone() == wanted
    assert wanted is not None
    assert wanted[0] > 0
    assert len(list(writing.table.scan(EqualTo(column, value)).plan_files())) == 1


def test_files_that_cannot_have_a_row_are_left_out(writing: Writing) -> None:
    for start in (0, 100, 200):
        writing.write(f"select x, 'long enough to be cut ' || x as s from range({start}, {start + 10}) t(x)")

    assert len(list(writing.table.scan(EqualTo("x", 105)).plan_files())) == 1
    assert list(writing.table.scan(EqualTo("x", 50)).plan_files()) == []
    assert list(writing.table.scan(EqualTo("s", "a")).plan_files()) == []


# Partitions

_ROWS = """
select x::int as k, if(x = 3, null, timestamp '1969-12-31 22:30:00' + interval (x * 7) hours) as at,
  if(x = 3, null, timestamptz '1969-12-31 22:30:00+00' + interval (x * 7) hours) as atz,
  if(x = 3, null, date '1969-12-30' + x::int) as day, if(x = 3, null, 'kind/ä=' || x % 2) as kind,
  if(x = 3, null, x - 3) as n, if(x = 3, null, (x - 3.5)::decimal(9, 2)) as d, x % 2 = 0 as flag,
  if(x = 3, null, md5('' || x)::uuid) as u, if(x = 3, null, ('\\xFF' || x)::blob) as b, x::int - 4 as i
from range(8) t(x)
"""


@pytest.mark.parametrize(
    "partitions",
    [
        *([(column, "identity")] for column in ("kind", "day", "at", "atz", "n", "d", "flag", "u", "b", "i")),
        *([("at", name)] for name in ("year", "month", "day", "hour")),
        *([("atz", name)] for name in ("day", "hour")),
        *([("day", name)] for name in ("year", "month", "day")),
        *([(column, "bucket[4]")] for column in ("kind", "day", "at", "n", "d", "u", "b", "i")),
        *([(column, "truncate[3]")] for column in ("kind", "n", "d", "b", "i")),
        [("kind", "void")],
        [("at", "month"), ("kind", "identity"), ("n", "bucket[2]")],
    ],
    ids=lambda partitions: "-".join(f"{column}.{name}" for column, name in partitions),
)
def test_a_partitioned_table_is_read_the_same_by_all(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection, partitions: list[tuple[str, str]]
) -> None:
    expected = rows_of(engine, _ROWS)
    fields = [By(column, name) for column, name in partitions]

    writing.write(_ROWS, *fields)
    location = writing.write(_ROWS, *fields).location

    readers.all_read(location, expected * 2)
    for row in expected:
        found = writing.table.scan(EqualTo("k", row[0])).to_arrow()
        assert plain([tuple(one.values()) for one in found.to_pylist()]) == plain([row] * 2)
    assert [str(one.transform) for one in writing.table.spec().fields] == [name for _, name in partitions]
    if not {name for _, name in partitions} <= {"identity", "void"} or partitions[0][0] == "u":
        # PyIceberg works these out only with a package of Rust, if at all; for what goes, it does not have to.
        writing.table.delete(GreaterThanOrEqual("k", 0))
        assert readers.duckdb(writing.table.metadata_location) == []
        readers.all_read(writing.write(_ROWS, *fields).location, expected)
    else:
        writing.table.append(writing.table.scan().to_arrow())
        readers.all_read(writing.table.metadata_location, expected * 4)


def test_partition_fields_of_one_type_are_read_the_same_by_all(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection
) -> None:
    sql = """
    select x::int as k, if(x = 1, null, md5('u' || x)::uuid) as u, md5('v' || x)::uuid as v,
      (x - 1.5)::decimal(9, 2) as d, if(x = 2, null, (x / 2)::decimal(9, 2)) as e
    from range(3) t(x)
    """
    fields = [By("u"), By("d"), By("v"), By("e"), By("d", "truncate[3]")]
    expected = rows_of(engine, sql)

    writing.write(sql, *fields)
    location = writing.write(sql, *fields).location

    readers.all_read(location, expected * 2)
    for row in expected:
        found = writing.table.scan(EqualTo("d", row[3])).to_arrow()
        assert plain([tuple(one.values()) for one in found.to_pylist()]) == plain([row] * 2)
    commit = writing.begin(sql, *fields)
    gone = [file for file in commit.files() if file.partition[1] == expected[0][3]]
    readers.all_read(commit.finish([], gone).location, expected[1:] * 2)


def test_a_large_partition_has_several_files(writing: Writing, readers: Readers) -> None:
    sql = "select i as id, i % 10 // 9 as part, hash(i) >> 1 as x from range(600000) t(i)"
    commit = writing.begin(sql, By("part", "identity"))

    added = writing.files(commit, sql, file_bytes=2_000_000)
    location = commit.finish(added).location

    large = [file.file_size_in_bytes for file in added if file.partition[0] == 0]
    assert len(large) > 1
    assert max(large) < sum(large) * 0.8
    assert len(added) == len(large) + 1
    read = readers.duckdb(location)
    assert len(read) == 600_000
    assert {(number, part) for number, part, _ in read} == {(i, i % 10 // 9) for i in range(600_000)}


def test_files_of_other_partitions_are_left_out(writing: Writing) -> None:
    writing.write(_ROWS, By("at", "day"), By("kind"))

    found = list(writing.table.scan(EqualTo("kind", "kind/ä=1")).plan_files())

    assert {task.file.partition[1] for task in found} == {"kind/ä=1"}
    files = writing.begin(_ROWS, By("at", "day"), By("kind")).files()
    assert sum(file.rows for file in files) == 8
    assert {file.partition[1] for file in files} == {"kind/ä=0", "kind/ä=1", None}


def test_partitions_change_for_what_is_written_from_then_on(
    writing: Writing, readers: Readers, engine: duckdb.DuckDBPyConnection
) -> None:
    expected = rows_of(engine, _ROWS)
    by_day, by_kind = By("at", "day"), By("kind")

    writing.write(_ROWS)
    writing.write(_ROWS, by_day)
    writing.write(_ROWS, by_day, by_kind)
    location = writing.write(_ROWS).location

    readers.all_read(location, expected * 4)
    assert [len(spec.fields) for spec in writing.table.metadata.partition_specs] == [0, 1, 2]
    commit = writing.begin(_ROWS, by_day)
    files = commit.files()
    assert {file.spec_id for file in files} == {0, 1, 2}
    gone = [file for file in files if file.spec_id in (0, 2)][:3]
    rest = commit.finish([], gone)
    assert len(readers.duckdb(rest.location)) == 32 - sum(file.rows for file in gone)
    readers.all_read(writing.write(_ROWS, by_kind, instead=True).location, expected)


def test_columns_that_partitions_were_made_of_can_go(writing: Writing, readers: Readers) -> None:
    writing.write("select x::int as k, x as gone from range(3) t(x)", By("gone"))
    writing.write("select x::int as k, x as gone from range(3) t(x)")

    with pytest.raises(Conflict, match="stays, and the column goes that it is partitioned by"):
        writing.write("select 9::int as k")
    location = writing.write("select x::int as k from range(4) t(x)", instead=True).location

    readers.all_read(location, [(k,) for k in range(4)])
    writing.table.append(pa.table({"k": pa.array([9], pa.int32())}))
    assert len(readers.duckdb(writing.table.metadata_location)) == 5


def test_a_partition_field_that_does_not_fit_is_refused(writing: Writing) -> None:
    with pytest.raises(ValueError, match=r"column 'x' is long, which cannot be partitioned by day"):
        writing.begin("select 1::bigint as x", By("x", "day"))
    with pytest.raises(ValueError, match="column 'l' is list"):
        writing.begin("select [1] as l", By("l"))


# Columns


def test_columns_come_go_and_widen(writing: Writing, readers: Readers) -> None:
    writing.write("select 1::int as i, 1.5::float as f, 2.5::decimal(4, 1) as d, {'a': 1} as s, 'old' as gone")
    location = writing.write(
        "select 2::bigint as i, 2.5::double as f, 3.5::decimal(9, 1) as d, {'a': 2::bigint, 'b': 'x'} as s, 7 as new"
    ).location

    readers.all_read(
        location,
        [
            (1, 1.5, Decimal("2.5"), {"a": 1, "b": None}, None),
            (2, 2.5, Decimal("3.5"), {"a": 2, "b": "x"}, 7),
        ],
    )
    # A column that comes back is another one.
    back = writing.write("select 3 as i, 'back' as gone").location
    assert {row[-1] for row in readers.duckdb(back)} == {None, "back"}
    # So is one whose values cannot be read as they were.
    other = writing.write("select 'a text' as i").location
    assert plain(readers.pyiceberg(other)) == plain([(None,), (None,), (None,), ("a text",)])


# Snapshots and manifests


def test_snapshots_and_manifests_stay_few_whatever_is_appended(
    writing: Writing, readers: Readers, on: Callable[[str], BranchCatalog]
) -> None:
    for number in range(130):
        writing.write(f"select {number} as x")

    metadata = writing.table.metadata
    assert len(metadata.snapshots) == SNAPSHOTS_KEPT
    assert len(metadata.snapshot_log) == SNAPSHOTS_KEPT
    assert len(metadata.metadata_log) <= SNAPSHOTS_KEPT
    assert metadata.last_sequence_number == 130
    snapshot = metadata.current_snapshot()
    assert snapshot is not None
    manifests = snapshot.manifests(writing.table.io)
    assert len(manifests) < 20
    assert max((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests) >= 100
    entries = [entry for one in manifests for entry in one.fetch_manifest_entry(writing.table.io)]
    assert sorted(entry.sequence_number or 0 for entry in entries) == list(range(1, 131))
    assert len({entry.snapshot_id for entry in entries}) == 130
    assert snapshot.summary is not None
    assert (snapshot.summary["total-records"], snapshot.summary["total-data-files"]) == ("130", "130")
    readers.all_read(writing.table.metadata_location, [(number,) for number in range(130)])


def test_a_commit_takes_out_what_it_is_told_to_and_keeps_the_rest_as_it_was(writing: Writing, readers: Readers) -> None:
    for number in range(5):
        writing.write(f"select {number} as x")
    before = {file.location: file.entry for file in writing.begin("select 1 as x").files()}
    commit = writing.begin("select 1 as x")
    gone = [file for file in commit.files() if file.lower[1] in (b"\x01\0\0\0", b"\x03\0\0\0")]

    location = commit.finish(writing.files(commit, "select 9 as x"), gone).location

    readers.all_read(location, [(0,), (2,), (4,), (9,)])
    table = writing.table
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert len(table.metadata.snapshots) == 6
    assert snapshot.summary is not None
    told = ("operation", "added-records", "deleted-records", "total-records")
    assert [str(getattr(snapshot.summary[one], "value", snapshot.summary[one])) for one in told] == [
        "overwrite",
        "1",
        "2",
        "4",
    ]
    kept = [file for file in writing.begin("select 1 as x").files() if file.location in before]
    assert {(file.location, file.entry.sequence_number, file.entry.snapshot_id) for file in kept} == {
        (file.location, before[file.location].sequence_number, before[file.location].snapshot_id) for file in kept
    }
    deleted = [
        entry
        for one in snapshot.manifests(table.io)
        for entry in one.fetch_manifest_entry(table.io, discard_deleted=False)
        if entry.status is ManifestEntryStatus.DELETED
    ]
    assert {entry.data_file.file_path for entry in deleted} == {file.location for file in gone}
    assert {entry.snapshot_id for entry in deleted} == {snapshot.snapshot_id}


# Commits that fail


def test_of_two_commits_that_began_together_one_is_made(writing: Writing, readers: Readers) -> None:
    writing.write("select 1 as x")
    one, two = writing.begin("select 2 as x"), writing.begin("select 3 as x")
    one.finish(writing.files(one, "select 2 as x"))

    with pytest.raises(CommitFailedException):
        two.finish(writing.files(two, "select 3 as x"))

    readers.all_read(writing.table.metadata_location, [(1,), (2,)])


async def test_nothing_is_committed_to_a_closed_branch(writing: Writing, lake: Lakehouse, branch: str) -> None:
    await asyncio.to_thread(writing.write, "select 1 as x")
    commit = await asyncio.to_thread(writing.begin, "select 2 as x")
    await lake.close_branch(branch)

    with pytest.raises(BranchClosed):
        await asyncio.to_thread(commit.finish, [], await asyncio.to_thread(commit.files))


def test_what_was_not_put_is_neither_known_nor_named(stack: Stack, writing: Writing) -> None:
    first = writing.write("select 1 as x")
    folder = first.location.rpartition("/")[0]
    files = TableFiles(s3_properties(stack.settings, "runner"))
    denied = f"s3://{stack.settings.s3_bucket}/default/landing/zone/metadata/x.avro"

    with pytest.raises(PermissionError):
        files.put_all({f"{folder}/fine.avro": b"fine", denied: b"denied"})

    with files.new_input(f"{folder}/fine.avro").open() as stream:
        assert stream.read() == b"fine"
    with pytest.raises((FileNotFoundError, PermissionError)):
        files.new_input(denied).open()
    # A commit whose metadata cannot be put does not move the table.
    commit = writing.begin("select 2 as x")
    lost = replace(commit, metadata=commit.metadata.model_copy(update={"location": denied.rpartition("/metadata")[0]}))
    with pytest.raises(PermissionError):
        lost.finish(writing.files(commit, "select 2 as x"))
    assert writing.table.metadata_location == first.location
    commit.finish(writing.files(commit, "select 3 as x"))
    assert len(writing.table.metadata.snapshots) == 2


async def test_without_the_object_store_nothing_is_committed(
    stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with (
        stack_in(tmp_path_factory.mktemp("fragile"), ["postgres", "object_store", "lakehouse"]) as stack,
        lakehouse(stack.settings, "runner") as lake,
    ):
        await lake.ensure_namespace("test", "bronze")
        branch = await new_branch(lake)
        with (
            catalogs(stack.settings, "runner") as on,
            open_connection(stack.settings, threads=2, spill_directory=str(tmp_path_factory.mktemp("spill"))) as engine,
        ):
            writing = Writing(engine, on(branch), new_table())
            first = await asyncio.to_thread(writing.write, "select 1 as x")
            commit = await asyncio.to_thread(writing.begin, "select 2 as x")
            files = await asyncio.to_thread(writing.files, commit, "select 2 as x")
            async with stack.away("object_store"):
                with pytest.raises(Unavailable):
                    await asyncio.to_thread(commit.finish, files)
            assert await lake.location(writing.name, branch) == first.location

            await asyncio.to_thread(commit.finish, files)

            assert len((await asyncio.to_thread(lambda: writing.table)).metadata.snapshots) == 2


def test_a_table_of_the_first_version_goes_on_as_one_of_the_second(writing: Writing, readers: Readers) -> None:
    rows = pa.table({"k": pa.array([1, 2], pa.int32()), "day": ["a", "b"]})
    schema = Schema(NestedField(1, "k", IntegerType()), NestedField(2, "day", StringType()))
    table = writing.catalog.create_table(
        writing.name,
        schema,
        partition_spec=PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day")),
        properties={"format-version": "1"},
    )
    table.append(rows)
    assert writing.table.format_version == 1
    assert len(writing.begin("select 3::int as k, 'a' as day", By("day")).files()) == 2

    more = writing.write("select 3::int as k, 'a' as day", By("day"))

    assert writing.table.format_version == 2
    readers.all_read(more.location, [(1, "a"), (2, "b"), (3, "a")])
    writing.table.append(rows)
    commit = writing.begin("select 3::int as k, 'a' as day", By("day"))
    last = commit.finish([], [file for file in commit.files() if file.partition[0] == "a"])
    readers.all_read(last.location, [(2, "b"), (2, "b")])


def test_a_table_of_the_third_version_is_refused(writing: Writing) -> None:
    writing.write("select 1 as x")
    table = writing.table
    third = json.loads(table.metadata.model_dump_json()) | {"format-version": 3, "next-row-id": 1}
    table.metadata = TableMetadataUtil.parse_obj(third)

    with pytest.raises(Conflict, match=r"has Iceberg's format version 3, .* only version 2 is written"):
        change(writing.catalog, writing.name, table, table.schema(), [], snapshot_properties={})


def test_rows_that_another_engine_deleted_are_not_brought_back(writing: Writing) -> None:
    writing.write("select 1 as x")
    commit = writing.begin("select 1 as x")
    [manifest] = commit._before.live
    manifest._data[3] = type(manifest.content).DELETES

    with pytest.raises(Conflict, match="has delete files"):
        commit.files()
