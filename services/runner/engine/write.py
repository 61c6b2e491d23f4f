"""DuckDB's result to Parquet files in the bucket, streamed, and from there into an Iceberg table."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import duckdb
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table, Transaction
from pyiceberg.typedef import Record

from services.runner.config import Strategy
from services.runner.domain import FailureKind
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
from services.runner.engine.statement import Bound
from services.runner.problems import WorkFailed
from services.runner.target import Target

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


@dataclass(frozen=True)
class _ParquetFile:
    location: str
    rows: int
    bytes: int


def write(connection: duckdb.DuckDBPyConnection, bound: Bound, target: Target, strategy: Strategy) -> Written:
    """Run the query and bring its rows into the table, in one commit.

    Raises `WorkFailed`; then nothing but files that no table knows is left behind.
    """
    columns = _columns(connection, bound)
    table = target.load(strategy)
    transaction = _transaction(target, table, columns)
    files = _copy(connection, bound, projection(transaction.table_metadata.schema(), columns), transaction)
    match strategy:
        case Strategy.APPEND_ONLY if files:
            target.append(transaction, _data_files(transaction, files))
        case Strategy.APPEND_ONLY if table is not None:
            return Written(0, 0, 0, table.metadata_location, has_changed=False)
        case Strategy.FULL_REFRESH:
            target.replace(transaction, _data_files(transaction, files))
    committed = transaction.commit_transaction()
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return Written(rows, len(files), size, target.location_of(committed), has_changed=True)


def _columns(connection: duckdb.DuckDBPyConnection, bound: Bound) -> list[Column]:
    with errors_of(bound, "describe (\n"):
        try:
            return columns_of(connection, f"(\n{bound.sql}\n)")
        except SchemaError as error:
            raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _transaction(target: Target, table: Table | None, columns: Sequence[Column]) -> Transaction:
    """A transaction in which the table has all the columns."""
    try:
        if table is None:
            return target.created(schema_of(columns))
        return target.evolved(table, merged_schema(table.schema(), columns))
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _copy(
    connection: duckdb.DuckDBPyConnection, bound: Bound, columns: Projection, transaction: Transaction
) -> list[_ParquetFile]:
    folder = f"{transaction.table_metadata.location}/data/{uuid4()}"
    prefix = f"copy (select {', '.join(columns.expressions)} from (\n"
    options = (
        f"format parquet, compression zstd, field_ids {columns.field_ids}, return_stats,"
        f" file_size_bytes {_FILE_BYTES}, filename_pattern '{{uuid}}', append"
    )
    with errors_of(bound, prefix):
        written = connection.execute(f"{prefix}{bound.sql}\n)) to '{folder}' ({options})").fetchall()
    return [_ParquetFile(location, rows, size) for location, rows, size, *_ in written if rows]


def _data_files(transaction: Transaction, files: Sequence[_ParquetFile]) -> list[DataFile]:
    """What Iceberg keeps of each file, its statistics taken from the file's own footer."""
    if not files:
        return []
    metadata = transaction.table_metadata
    schema = metadata.schema()
    plan = compute_statistics_plan(schema, metadata.properties)
    ids = parquet_path_to_id_mapping(schema)
    io = transaction._table.io

    def data_file(file: _ParquetFile) -> DataFile:
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=_footer(io, file), stats_columns=plan, parquet_column_mapping=ids
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=file.location,
            file_format=FileFormat.PARQUET,
            partition=Record(),
            file_size_in_bytes=file.bytes,
            sort_order_id=None,
            spec_id=metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    with ThreadPoolExecutor(max_workers=8) as executor:
        return list(executor.map(data_file, files))


def _footer(io: FileIO, file: _ParquetFile) -> Any:
    with io.new_input(file.location).open() as stream:
        return pq.read_metadata(stream)
