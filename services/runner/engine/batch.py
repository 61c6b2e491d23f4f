"""What a merge strategy works with: the new rows of a run, and the table that they meet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Final

import duckdb
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from services.runner.config import Config, PartitionField
from services.runner.domain import FailureKind
from services.runner.engine.alone import rows_alone
from services.runner.engine.binding import Query
from services.runner.engine.parquet import ROWS_OF_GROUP, Copy, rows_of
from services.runner.engine.partitions import column
from services.runner.engine.schema import Column, SchemaError, duckdb_type, field_of, new_schema
from services.runner.engine.session import errors_of, kind_of, told
from services.runner.engine.statement import identifier
from services.runner.engine.touched import Touched, same, touched_files
from services.runner.problems import WorkFailed
from services.runner.target import Target
from shared.lakehouse.commit import Commit
from shared.lakehouse.manifests import PresentFile

_FILES: Final = 64
"""So many a table has whose rows are replaced by key, unless it is small: each is rewritten when one row of it is."""
_LEAST_FILE_ROWS: Final = ROWS_OF_GROUP
"""Of its files, so that a small table has few."""
_WIDE_ROW_BYTES: Final = 16_384
"""What a row is taken to need where memory ran out: it may be wider than its types tell."""

_NEW_ROWS: Final = '"__rat_new_rows"'
_LAST: Final = '"__rat_last_rows"'
_SPOOLED: Final = '"__rat_spooled_rows"'


@dataclass(frozen=True)
class Written:
    """What came of writing."""

    rows: int
    """Rows that were inserted or replaced; those that were only copied from file to file do not count."""
    files: int
    bytes: int
    location: str | None
    """Of the table's metadata on the branch now; None if there is no table."""
    has_changed: bool
    """Whether the branch holds anything to merge."""
    rows_alone: str | None = None
    """The table as a relation of the files that were written; None where others hold rows of it."""


@dataclass(frozen=True)
class Writing:
    """A run's query, and the table that its rows are to be written to."""

    connection: duckdb.DuckDBPyConnection
    bound: Query
    columns: Sequence[Column]
    """Those of the query."""
    target: Target
    table: Table | None
    """As it is on the branch; None if it is to be created."""
    config: Config
    started_at: datetime
    """When the run started; the same in all of its attempts."""

    def begin(self, *own: Column) -> "Batch":
        """Begin a commit in which the table has the columns of the query, and these of the strategy's own.

        `SchemaError` where it cannot have them.
        """
        for one in own:
            if any(column.name.lower() == one.name.lower() for column in self.columns):
                raise SchemaError(
                    f"{self.config.merge_strategy} keeps a column {one.name!r} of its own, and the query gives one too;"
                    " give that another name"
                )
        present = self.table.schema() if self.table is not None else None
        columns = [*self.columns, *own]
        schema = new_schema(present, columns, self.config.on_schema_change)
        partitions = []
        for field in self.config.partition_by:
            found = field_of(schema, field.column)
            if found is None:
                near = _suggestion(field.column, [one.name for one in schema.fields])
                raise SchemaError(self._told(f"partition_by: there is no column {field.column!r}{near}"))
            partitions.append(PartitionField(found.name, field.transform))
        try:
            commit = self.target.begin(self.table, schema, partitions)
        except ValueError as error:
            raise SchemaError(self._told(f"partition_by: {error}")) from error
        return Batch(self, commit)

    def _told(self, message: str) -> str:
        """What is wrong with `partition_by`, with its place."""
        return str(self.config.problem("partition_by", message))


@dataclass(frozen=True)
class Batch:
    """The new rows of a run and the table that they meet; in all SQL of it a column is called by its id (`column`)."""

    writing: Writing
    commit: Commit

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB, as the run's process has it."""
        return self.writing.connection

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """All columns of the table."""
        return tuple(field.field_id for field in self.commit.schema.fields)

    @property
    def select_list(self) -> str:
        """All columns of the table, as SQL."""
        return ", ".join(column(number) for number in self.ids)

    def ids_of(self, key: str, *names: str) -> tuple[int, ...]:
        """The columns of the query that a key of the config names; `SchemaError` where the query has no such column."""
        given = [one.name for one in self.writing.columns]
        for name in names:
            if name.lower() not in [one.lower() for one in given]:
                raise SchemaError(f"{key}: the query has no column {name!r}{_suggestion(name, given)}")
        return tuple(self.id_of(name) for name in names)

    def id_of(self, name: str) -> int:
        """A column that the table has."""
        field = field_of(self.commit.schema, name)
        assert field is not None, "the table has all columns of the query"
        return field.field_id

    def new_files(self) -> list[DataFile]:
        """Write the rows of the query as they come."""
        copy, (before, after) = Copy(self.commit, self.connection), self._cast()
        with errors_of(self.writing.bound, copy.before + before):
            return copy.run(f"{before}{self.writing.bound.sql}{after}")

    @contextmanager
    def new_rows(self) -> Iterator[str]:
        """Run the query and keep its rows, on disk where memory does not hold them: a table, with `rowid` in order.

        What is done with them is done as `_reading_files` says: joins are to have them on the right.
        """
        before, after = self._cast()
        before = f"create or replace temp table {_NEW_ROWS} as {before}"
        with temporary(self.connection, _NEW_ROWS):
            with errors_of(self.writing.bound, before):
                self.connection.execute(f"{before}{self.writing.bound.sql}{after}")
            with _reading_files(self.connection):
                yield _NEW_ROWS

    def keep_last(self, rows: str, ids: Sequence[int]) -> None:
        """Forget all new rows of a key but the last, by the watermark if there is one, else by position."""
        if self._are_in_order(rows, ids):
            return
        keys = ", ".join(column(number) for number in ids)
        watermark = self.writing.config.watermark_column
        last = f"select max(rowid) as place from {rows} group by {keys}"
        if watermark is not None:
            [number] = self.ids_of("watermark_column", watermark)
            order = f"partition by {keys} order by {column(number)} desc nulls last, rowid desc"
            # A window spills to disk; an aggregate that orders by values does not.
            last = f"select rowid as place from {rows} qualify row_number() over ({order}) = 1"
        with engine_errors(), temporary(self.connection, _LAST):
            self.connection.execute(f"create or replace temp table {_LAST} as {last}")
            if count_of(self.connection, _LAST) < count_of(self.connection, rows):
                self.connection.execute(f"delete from {rows} where rowid not in (select place from {_LAST})")

    def _are_in_order(self, rows: str, ids: Sequence[int]) -> bool:
        """Whether each key is greater than the one before, so that there is one row of each: that is soon found out."""
        key = f"row({', '.join(column(number) for number in ids)})"
        out_of_order = f"from (select {key} as key, lag({key}) over () as before from {rows}) where key <= before"
        with engine_errors():
            return self.connection.execute(f"select not exists ({out_of_order})").fetchone() == (True,)

    def table_rows(self, files: Sequence[PresentFile], ids: Sequence[int]) -> str:
        """The rows of some of the table's files, with these columns, the file and the place in it: a relation."""
        return rows_of([file.location for file in files], self.commit.schema, ids)

    def files_of(self, query: str, new_rows: int) -> list[DataFile]:
        """Write the rows of a query of ours, which gives all columns of the table; so many of them are new."""
        rows = self._file_rows(new_rows)
        with engine_errors():
            try:
                return Copy(self.commit, self.connection, file_rows=rows).run(query)
            except duckdb.OutOfMemoryException:
                return self._files_apart(query, rows)

    def _files_apart(self, query: str, file_rows: int) -> list[DataFile]:
        """The same where memory is too little to read and to write at once: the rows go to disk between."""
        copy = Copy(self.commit, self.connection, file_rows=file_rows, row_bytes=_WIDE_ROW_BYTES)
        with spooled(self.connection, query) as rows:
            return copy.run(f"select {self.select_list} from {rows}")

    def finish(self, added: Sequence[DataFile], removed: Sequence[PresentFile], rows: int) -> Written:
        """Commit: these files come, those go, and so many rows were written by it."""
        committed = self.commit.finish(added, removed)
        size = sum(file.file_size_in_bytes for file in added)
        alone = rows_alone(self.commit, added, removed)
        return Written(rows, len(added), size, committed.location, committed.has_changed, alone)

    def replace(self, rows: str, ids: Sequence[int]) -> Written:
        """Put new rows in the place of all rows of the table that have the same values in these columns."""
        with engine_errors():
            count = count_of(self.connection, rows)
            if count == 0:
                return self.finish([], [], 0)
            touched = touched_files(self.connection, self.commit, rows, ids)
        added = self.files_of(f"{self._kept(touched, rows, ids)} select {self.select_list} from {rows}", count)
        return self.finish(added, [one.file for one in touched], count)

    def _kept(self, touched: Sequence[Touched], rows: str, ids: Sequence[int]) -> str:
        partly = [one.file for one in touched if not one.is_whole]
        if not partly:
            return ""
        table = self.table_rows(partly, self.ids)
        return f"select {self.select_list} from {table} t anti join {rows} n on {same(ids, 't', 'n')} union all"

    def _cast(self) -> tuple[str, str]:
        """What stands around the query to make its columns those of the table."""
        given = {self.id_of(one.name): one.name for one in self.writing.columns}
        columns = []
        for field in self.commit.schema.fields:
            value = identifier(given[field.field_id]) if field.field_id in given else "null"
            columns.append(f"{value}::{duckdb_type(field.field_type)} as {column(field.field_id)}")
        return f"select {', '.join(columns)} from (\n", "\n)"

    def _file_rows(self, new_rows: int) -> int:
        """How many rows a file is to have, of a table that gets so many."""
        rows = new_rows + sum(file.rows for file in self.commit.files())
        return max(rows // _FILES, _LEAST_FILE_ROWS)


@contextmanager
def _reading_files(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Have DuckDB read the files of a table as fits them.

    Joins hold the rows on the right, which are new: those on the left, of the table, are many. DuckDB would often have
    it the other way round, as it knows little of files: that takes four times as long. And a file that it has read is
    not looked at again, as it never changes.
    """
    connection.execute("set disabled_optimizers = 'build_side_probe_side'")
    connection.execute("set validate_external_file_cache = 'NO_VALIDATION'")
    try:
        yield
    finally:
        connection.execute("reset disabled_optimizers")
        connection.execute("reset validate_external_file_cache")


@contextmanager
def temporary(connection: duckdb.DuckDBPyConnection, *tables: str) -> Iterator[None]:
    """Drop these tables in the end, and with them what they have spilled to disk."""
    try:
        yield
    finally:
        for table in tables:
            connection.execute(f"drop table if exists {table}")


@contextmanager
def spooled(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[str]:
    """Keep the rows of a query, on disk where memory does not hold them: what goes on with them has it to itself."""
    with temporary(connection, _SPOOLED):
        connection.execute(f"create or replace temp table {_SPOOLED} as {query}")
        yield _SPOOLED


def count_of(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """How many rows a relation has."""
    found = connection.execute(f"select count(*) from {relation}").fetchone()
    assert found is not None, "a count is always given"
    return int(found[0])


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise what DuckDB says of a statement of ours as `WorkFailed`: it is no fault of the author's."""
    try:
        yield
    except duckdb.Error as error:
        message, _ = told(error)
        kind = kind_of(error, message)
        raise WorkFailed(FailureKind.INTERNAL if kind is FailureKind.SQL else kind, message) from error


def _suggestion(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name.lower(), names, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; it has {', '.join(names)}"
