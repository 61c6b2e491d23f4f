"""Rows to Parquet files of a table and back, streamed by DuckDB; in all SQL here a column is called by its id."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

import duckdb
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    DecimalType,
    ListType,
    MapType,
    NestedField,
    StringType,
    StructType,
    UUIDType,
)

from services.runner.engine.binding import escaped
from services.runner.engine.partitions import Partitioning, column
from services.runner.engine.schema import duckdb_type, field_ids
from services.runner.engine.statement import identifier, string
from services.runner.engine.statistics import ParquetFile, data_file
from shared.lakehouse.commit import Commit

ROWS_OF_GROUP: Final = 122_880
"""Rows of a row group, as DuckDB makes them where memory is enough for it."""

FILE: Final = "file"
"""The name that the location of a row's file has beside the columns that `rows_of` gives."""
ROW: Final = "file_row_number"
"""The name of the place of a row in its file, likewise; it is there for those who ask for it."""

LARGEST_FILE: Final = 512_000_000
"""Bytes beyond which rows go to another file."""

_VECTOR: Final = 2048
"""Rows that DuckDB works on at a time: no row group has fewer."""
_WRITTEN_SHARE: Final = 8
"""Of a thread's memory, this part may be the rows of a row group: it is held as rows, and as what comes of them."""
_LENGTH: Final = 64
"""Bytes that a text is taken to need."""


class Copy:
    """The statement that writes the rows of a query to files of a table."""

    def __init__(
        self,
        commit: Commit,
        connection: duckdb.DuckDBPyConnection,
        *,
        file_rows: int | None = None,
        file_bytes: int = LARGEST_FILE,
        row_bytes: int | None = None,
    ) -> None:
        """Make it; files have about so many rows or bytes at the most.

        `row_bytes` is what a row needs in memory, where that is known better than its types tell it.
        """
        self._commit = commit
        self._connection = connection
        self._partitioning = Partitioning(commit.spec, commit.schema)
        fields = commit.schema.fields
        self._marks = _free_names([field.name for field in fields], len(commit.spec.fields))
        columns = [f"{column(field.field_id)} as {identifier(field.name)}" for field in fields]
        marks = [
            f"{expression} as {identifier(mark)}"
            for expression, mark in zip(self._partitioning.expressions(), self._marks, strict=True)
        ]
        rows = _rows_of_group(connection, row_bytes or sum(map(_width, fields)))
        self._file_bytes = file_bytes
        self._rotated = f"row_group_size {rows}, file_size_bytes {file_bytes}" + (
            f", row_groups_per_file {max(file_rows // rows, 1)}" if file_rows else ""
        )
        by = f"partition_by ({', '.join(identifier(mark) for mark in self._marks)}), hive_file_pattern false"
        self.before = f"copy (select {', '.join(columns + marks)} from ("
        self.after = self._after(f"row_group_size {rows}, {by}" if self._marks else self._rotated)
        self._before_split = f"copy (select {', '.join(columns)} from ("

    def run(self, query: str) -> list[DataFile]:
        """Write the rows of a query that gives all columns of the table by their ids."""
        self._partitioning.prepare(self._connection)
        return [
            self._data_file(part, partition)
            for file, partition in self._written(f"{self.before}{query}{self.after}")
            for part in self._parts(file)
        ]

    def _after(self, how: str) -> str:
        """What stands behind the query."""
        ids = ", ".join(f"{identifier(field.name)}: {field_ids(field)}" for field in self._commit.schema.fields)
        return (
            f")) to '{self._commit.location}/data/{uuid4()}' (format parquet, compression zstd, field_ids {{{ids}}},"
            f" return_stats, {how}, filename_pattern '{{uuid}}', append)"
        )

    def _written(self, statement: str) -> list[tuple[ParquetFile, dict[str, str] | None]]:
        written = self._connection.execute(statement).fetchall()
        # A result without rows still makes a file.
        return [
            (ParquetFile(location, rows, size, statistics), partition)
            for location, rows, size, _, statistics, partition in written
            if rows
        ]

    def _parts(self, file: ParquetFile) -> list[ParquetFile]:
        """The files that a file of a partition becomes: DuckDB makes them as large as partitions are."""
        if not self._marks or file.bytes <= self._file_bytes:
            return [file]
        schema = self._commit.schema
        rows = rows_of([file.location], schema, [field.field_id for field in schema.fields])
        parts = self._written(f"{self._before_split}from {rows}{self._after(self._rotated)}")
        return [part for part, _ in parts]

    def _data_file(self, file: ParquetFile, partition: dict[str, str] | None) -> DataFile:
        texts = [(partition or {})[mark] for mark in self._marks]
        return data_file(file, self._commit.schema, self._partitioning.record(texts))


def _rows_of_group(connection: duckdb.DuckDBPyConnection, row_bytes: int) -> int:
    """Rows of a row group that each thread has the memory to hold, beside what else it needs."""
    found = connection.execute(
        "select parse_formatted_bytes(current_setting('memory_limit')), current_setting('threads')"
    ).fetchone()
    assert found is not None, "settings are always given"
    memory, threads = found
    rows = min(memory // threads // _WRITTEN_SHARE // row_bytes, ROWS_OF_GROUP)
    return max(int(rows) // _VECTOR * _VECTOR, _VECTOR)


def _width(field: NestedField) -> int:
    """Bytes that a value needs in memory, as far as its type tells it."""
    match field.field_type:
        case StructType() as kind:
            return sum(map(_width, kind.fields))
        case ListType() as kind:
            return _LENGTH + _width(kind.element_field)
        case MapType() as kind:
            return _LENGTH + _width(kind.key_field) + _width(kind.value_field)
        case StringType() | BinaryType():
            return _LENGTH
        case DecimalType() | UUIDType():
            return 16
        case _:
            return 8


def _free_names(taken: Iterable[str], count: int) -> list[str]:
    """Names for so many more columns, which no column has."""
    stem = "partition"
    while any(name.lower().startswith(stem) for name in taken):
        stem += "_"
    return [f"{stem}{number}" for number in range(count)]


def rows_of(locations: Sequence[str], schema: Schema, ids: Iterable[int]) -> str:
    """A relation of the rows of a table's files with these columns as its schema has them, `FILE` and `ROW`.

    Columns are found by their ids, as Iceberg wants it: a file may be older than a column, or than its type.
    """
    files = ", ".join(string(escaped(location)) for location in locations)
    columns = ", ".join(
        f"{number}: {{name: '{column(number)}', type: {string(duckdb_type(schema.find_type(number)))},"
        " default_value: null}"
        for number in ids
    )
    return f"read_parquet([{files}], schema = map {{{columns}}}, filename = '{FILE}', hive_partitioning = false)"
