"""Rows to Parquet files of a table and back, streamed by DuckDB; in all SQL here a column is called by its id."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

import duckdb
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema

from services.runner.engine.binding import escaped
from services.runner.engine.partitions import Partitioning, column
from services.runner.engine.schema import duckdb_type, field_ids
from services.runner.engine.statement import identifier, string
from services.runner.engine.statistics import ParquetFile, data_file
from shared.lakehouse.commit import Commit

ROWS_OF_GROUP: Final = 122_880
"""Rows of a row group, as DuckDB makes them."""

FILE: Final = "file"
"""The name that the location of a row's file has beside the columns that `rows_of` gives."""
ROW: Final = "file_row_number"
"""The name of the place of a row in its file, likewise; it is there for those who ask for it."""

_LARGEST_FILE: Final = 512_000_000


class Copy:
    """The statement that writes the rows of a query to files of a table."""

    def __init__(self, commit: Commit, row_groups: int | None = None) -> None:
        """Make it; a file has no more row groups than this, if there is such a bound."""
        self._commit = commit
        self._partitioning = Partitioning(commit.spec, commit.schema)
        fields = commit.schema.fields
        self._marks = _free_names([field.name for field in fields], len(commit.spec.fields))
        columns = [f"{column(field.field_id)} as {identifier(field.name)}" for field in fields]
        marks = [
            f"{expression} as {identifier(mark)}"
            for expression, mark in zip(self._partitioning.expressions(), self._marks, strict=True)
        ]
        ids = ", ".join(f"{identifier(field.name)}: {field_ids(field)}" for field in fields)
        split = (
            f"partition_by ({', '.join(identifier(mark) for mark in self._marks)}), hive_file_pattern false"
            if self._marks
            else f"file_size_bytes {_LARGEST_FILE}" + (f", row_groups_per_file {row_groups}" if row_groups else "")
        )
        self.before = f"copy (select {', '.join(columns + marks)} from ("
        self.after = (
            f")) to '{commit.location}/data/{uuid4()}' (format parquet, compression zstd, field_ids {{{ids}}},"
            f" return_stats, {split}, filename_pattern '{{uuid}}', append)"
        )

    def run(self, connection: duckdb.DuckDBPyConnection, query: str) -> list[DataFile]:
        """Write the rows of a query that gives all columns of the table by their ids."""
        self._partitioning.prepare(connection)
        written = connection.execute(f"{self.before}{query}{self.after}").fetchall()
        # A result without rows still makes a file.
        return [
            self._data_file(ParquetFile(location, rows, size, statistics), partition)
            for location, rows, size, _, statistics, partition in written
            if rows
        ]

    def _data_file(self, file: ParquetFile, partition: dict[str, str] | None) -> DataFile:
        texts = [(partition or {})[mark] for mark in self._marks]
        return data_file(file, self._commit.schema, self._partitioning.record(texts))


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
