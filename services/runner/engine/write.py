"""DuckDB's result to Parquet files in the bucket, streamed, and from there into an Iceberg table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from uuid import uuid4

import duckdb
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IcebergType, NestedField

from services.runner.config import Strategy
from services.runner.domain import FailureKind
from services.runner.engine.binding import Query
from services.runner.engine.schema import (
    Column,
    Projection,
    SchemaError,
    columns_of,
    merged_schema,
    projection,
    schema_of,
)
from services.runner.engine.session import errors_of
from services.runner.engine.statistics import ParquetFile, data_file
from services.runner.problems import WorkFailed
from services.runner.target import Target
from shared.lakehouse.commit import Commit

_FILE_BYTES: Final = 512_000_000


@dataclass(frozen=True)
class Written:
    """What came of writing."""

    rows: int
    files: int
    bytes: int
    location: str | None
    """Of the table's metadata on the branch now; None if there is no table."""
    has_changed: bool
    """Whether the branch holds anything to merge."""


def write(connection: duckdb.DuckDBPyConnection, bound: Query, target: Target, strategy: Strategy) -> Written:
    """Run the query and bring its rows into the table, in one commit.

    Raises `WorkFailed`; then nothing but files that no table knows is left behind.
    """
    columns = _columns(connection, bound)
    table = target.load(strategy)
    commit = _commit(target, table, columns)
    files = _copy(connection, bound, projection(commit.schema, columns), commit.location)
    removed = commit.files() if strategy is Strategy.FULL_REFRESH else []
    if not files and strategy is not Strategy.FULL_REFRESH and table is not None:
        return Written(0, 0, 0, table.metadata_location, has_changed=False)
    committed = commit.finish([data_file(file, commit.schema) for file in files], removed)
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return Written(rows, len(files), size, committed.location, committed.has_changed)


def _columns(connection: duckdb.DuckDBPyConnection, bound: Query) -> list[Column]:
    with errors_of(bound, "describe (\n"):
        try:
            return columns_of(connection, f"(\n{bound.sql}\n)")
        except SchemaError as error:
            raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _commit(target: Target, table: Table | None, columns: Sequence[Column]) -> Commit:
    """A commit in which the table has all the columns."""
    try:
        if table is None:
            return target.begin(None, schema_of(columns))
        return target.begin(table, _changed(table.schema(), dict(merged_schema(table.schema(), columns))))
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _changed(schema: Schema, changes: Mapping[str, IcebergType]) -> Schema:
    """A schema with these columns, new or widened."""
    fields = [
        field.model_copy(update={"field_type": changes.get(field.name, field.field_type)}) for field in schema.fields
    ]
    known = {field.name for field in fields}
    new = [(name, kind) for name, kind in changes.items() if name not in known]
    numbers = count(schema.highest_field_id + 1)
    return Schema(*fields, *(NestedField(next(numbers), name, kind, required=False) for name, kind in new))


def _copy(connection: duckdb.DuckDBPyConnection, bound: Query, columns: Projection, location: str) -> list[ParquetFile]:
    folder = f"{location}/data/{uuid4()}"
    prefix = f"copy (select {', '.join(columns.expressions)} from (\n"
    options = (
        f"format parquet, compression zstd, field_ids {columns.field_ids}, return_stats,"
        f" file_size_bytes {_FILE_BYTES}, filename_pattern '{{uuid}}', append"
    )
    with errors_of(bound, prefix):
        written = connection.execute(f"{prefix}{bound.sql}\n)) to '{folder}' ({options})").fetchall()
    # A result without rows still makes a file.
    return [ParquetFile(location, rows, size, columns) for location, rows, size, _, columns, *_ in written if rows]
