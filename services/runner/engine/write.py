"""DuckDB's result to an Iceberg table on a branch: streamed to Parquet in the bucket, then one commit."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import duckdb
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table, Transaction
from pyiceberg.typedef import Record

from contracts.names import Qualified
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

PIPELINE_ID: Final = "rat.pipeline_id"
"""The property of a table that says which pipeline writes it."""
RUN_ID: Final = "rat.run_id"
"""The property of a snapshot that says which run made it."""

_DESCRIBE: Final = "(\n"
_FILE_BYTES: Final = 512_000_000
_PROPERTIES: Final = {
    "commit.manifest-merge.enabled": "true",
    # A scan opens every manifest: after 300 small appends it takes a second, with this a third of it.
    "commit.manifest.min-count-to-merge": "20",
    "write.parquet.compression-codec": "zstd",
}


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


class Target:
    """The table of a pipeline on the branch of an attempt."""

    def __init__(self, catalog: Catalog, name: Qualified, pipeline_id: UUID, run_id: UUID) -> None:
        self._catalog = catalog
        self._name = name
        self._pipeline_id = str(pipeline_id)
        self._run_id = str(run_id)

    def write(self, connection: duckdb.DuckDBPyConnection, bound: Bound, strategy: Strategy) -> Written:
        """Run the query and bring its rows into the table, in one commit.

        Raises `WorkFailed`; then nothing but files that no table knows is left behind.
        """
        with errors_of(bound, f"describe {_DESCRIBE}"):
            columns = _columns(connection, bound)
        table = self._table(strategy)
        transaction = self._transaction(table, columns)
        target = projection(transaction.table_metadata.schema(), columns)
        files = self._copy(connection, bound, target, transaction)
        match strategy:
            case Strategy.APPEND_ONLY if not files and table is not None:
                return Written(0, 0, 0, table.metadata_location, has_changed=False)
            case Strategy.APPEND_ONLY:
                self._append(transaction, files)
            case Strategy.FULL_REFRESH:
                self._replace(transaction, files)
        committed = transaction.commit_transaction()
        return Written(
            sum(file.rows for file in files),
            len(files),
            sum(file.bytes for file in files),
            self._location(committed),
            has_changed=True,
        )

    def _table(self, strategy: Strategy) -> Table | None:
        """The table on the branch, if it is this pipeline's; another one's is replaced as a whole or not at all."""
        try:
            table = self._catalog.load_table(tuple(self._name))
        except NoSuchTableError:
            return None
        if table.properties.get(PIPELINE_ID, self._pipeline_id) == self._pipeline_id:
            return table
        if strategy is not Strategy.FULL_REFRESH:
            raise WorkFailed(
                FailureKind.SCHEMA,
                f"table {str(self._name)!r} was written by another pipeline of this name, which was deleted:"
                f" the first run of this one must be full_refresh, not {strategy}",
            )
        self._catalog.drop_table(tuple(self._name))
        return None

    def _transaction(self, table: Table | None, columns: Sequence[Column]) -> Transaction:
        """A transaction in which the table has all the columns."""
        try:
            if table is None:
                return self._catalog.create_table_transaction(
                    tuple(self._name), schema_of(columns), properties={**_PROPERTIES, PIPELINE_ID: self._pipeline_id}
                )
            transaction = table.transaction()
            changes = merged_schema(table.schema(), columns)
        except SchemaError as error:
            raise WorkFailed(FailureKind.SCHEMA, str(error)) from error
        if changes:
            known = {field.name for field in table.schema().fields}
            with transaction.update_schema() as update:
                for name, kind in changes:
                    if name in known:
                        update.update_column((name,), field_type=kind)
                    else:
                        update.add_column((name,), kind)
        return transaction

    def _copy(
        self, connection: duckdb.DuckDBPyConnection, bound: Bound, target: Projection, transaction: Transaction
    ) -> list[_ParquetFile]:
        folder = f"{transaction.table_metadata.location}/data/{uuid4()}"
        prefix = f"copy (select {', '.join(target.expressions)} from (\n"
        options = (
            f"format parquet, compression zstd, field_ids {target.field_ids}, return_stats,"
            f" file_size_bytes {_FILE_BYTES}, filename_pattern '{{uuid}}', append"
        )
        with errors_of(bound, prefix):
            written = connection.execute(f"{prefix}{bound.sql}\n)) to '{folder}' ({options})").fetchall()
        return [_ParquetFile(location, rows, size) for location, rows, size, *_ in written if rows]

    def _append(self, transaction: Transaction, files: Sequence[_ParquetFile]) -> None:
        if files:
            with transaction.update_snapshot({RUN_ID: self._run_id}).merge_append() as snapshot:
                for file in _data_files(transaction, files):
                    snapshot.append_data_file(file)

    def _replace(self, transaction: Transaction, files: Sequence[_ParquetFile]) -> None:
        present = _present_files(transaction)
        if not present and not files:
            return
        with transaction.update_snapshot({RUN_ID: self._run_id}).overwrite() as snapshot:
            for data_file in present:
                snapshot.delete_data_file(data_file)
            for data_file in _data_files(transaction, files):
                snapshot.append_data_file(data_file)

    def _location(self, table: Table) -> str:
        # Right after a commit over REST the location may be an address of the catalog, which DuckDB cannot read.
        if not table.metadata_location.startswith("s3://"):
            table = self._catalog.load_table(tuple(self._name))
        return table.metadata_location


def _columns(connection: duckdb.DuckDBPyConnection, bound: Bound) -> list[Column]:
    try:
        return columns_of(connection, f"{_DESCRIBE}{bound.sql}\n)")
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _present_files(transaction: Transaction) -> list[DataFile]:
    snapshot = transaction.table_metadata.current_snapshot()
    if snapshot is None:
        return []
    io = transaction._table.io
    return [entry.data_file for manifest in snapshot.manifests(io) for entry in manifest.fetch_manifest_entry(io)]


def _data_files(transaction: Transaction, files: Sequence[_ParquetFile]) -> list[DataFile]:
    """What Iceberg keeps of each file, its statistics taken from the file's own footer."""
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
