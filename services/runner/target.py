"""The Iceberg table of a pipeline on the branch of an attempt: its schema, and one commit that changes its files."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSchemaUpdate,
    SetCurrentSchemaUpdate,
    SetDefaultSpecUpdate,
    TableUpdate,
)
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import Record

from contracts.names import Qualified
from services.runner.config import PartitionField, Strategy
from services.runner.domain import FailureKind
from services.runner.problems import WorkFailed
from shared.lakehouse.shape import numbered, partitioned

PIPELINE_ID: Final = "rat.pipeline_id"
"""The property of a table that says which pipeline writes it."""
RUN_ID: Final = "rat.run_id"
"""The property of a snapshot that says which run made it."""

_PROPERTIES: Final = {
    "commit.manifest-merge.enabled": "true",
    # A scan opens every manifest: after 300 small appends it takes a second, with this a third of it.
    "commit.manifest.min-count-to-merge": "20",
    "write.parquet.compression-codec": "zstd",
}


@dataclass(frozen=True)
class PresentFile:
    """A data file that the table has now."""

    entry: ManifestEntry
    manifest: str
    """Location of the manifest that names it."""

    @property
    def location(self) -> str:
        """Where it is in the object store."""
        return self.entry.data_file.file_path

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return self.entry.data_file.record_count

    @property
    def spec_id(self) -> int:
        """Which of the table's specs it was written under."""
        return self.entry.data_file.spec_id

    @property
    def partition(self) -> Record:
        """The values of that spec's fields."""
        return self.entry.data_file.partition

    @property
    def lower(self) -> Mapping[int, bytes]:
        """Field id → no value in the column is less, as Iceberg writes values; without columns where it is unknown."""
        return self.entry.data_file.lower_bounds or {}

    @property
    def upper(self) -> Mapping[int, bytes]:
        """Field id → no value in the column is greater, likewise."""
        return self.entry.data_file.upper_bounds or {}


@dataclass(frozen=True)
class Committed:
    """What came of a commit."""

    location: str
    """Of the table's metadata on the branch now."""
    has_changed: bool
    """Whether there was anything to commit."""


@dataclass(frozen=True)
class Target:
    """The table that a pipeline writes."""

    catalog: Catalog
    name: Qualified
    pipeline_id: UUID
    run_id: UUID

    def load(self, strategy: Strategy) -> Table | None:
        """The table on the branch, if it is this pipeline's; another one's is replaced as a whole or not at all."""
        try:
            table = self.catalog.load_table(tuple(self.name))
        except NoSuchTableError:
            return None
        if table.properties.get(PIPELINE_ID, str(self.pipeline_id)) == str(self.pipeline_id):
            return table
        if strategy is not Strategy.FULL_REFRESH:
            raise WorkFailed(
                FailureKind.SCHEMA,
                f"table {str(self.name)!r} was written by another pipeline of this name, which was deleted:"
                f" the first run of this one must be full_refresh, not {strategy}",
            )
        self.catalog.drop_table(tuple(self.name))
        return None

    def begin(self, table: Table | None, schema: Schema, partitions: Sequence[PartitionField] = ()) -> "Commit":
        """Begin a commit in which the table has these columns and is partitioned so; None is a table to be created.

        A column has the id that the table knows it by, whatever id it comes with; it is another column where its
        values cannot be read as the type that is wanted. `ValueError` where a partition field does not fit its column.
        """
        fields = [(field.column, field.transform) for field in partitions]
        if table is None:
            schema = numbered(schema, None, 0)
            transaction: Transaction = self.catalog.create_table_transaction(
                tuple(self.name),
                schema,
                partition_spec=partitioned(fields, schema, []),
                properties={**_PROPERTIES, PIPELINE_ID: str(self.pipeline_id)},
            )
        else:
            transaction = _Transaction(table)
            transaction._apply(tuple(_updates(table.metadata, schema, fields)))
        return Commit(table, transaction, self.run_id)


@dataclass(frozen=True)
class Commit:
    """A commit in the making: what data files are to be written like, and then the one snapshot with them."""

    table: Table | None
    transaction: Transaction
    run_id: UUID

    @cached_property
    def schema(self) -> Schema:
        """The columns, with the ids that data files have to be written with."""
        return self.transaction.table_metadata.schema()

    @cached_property
    def spec(self) -> PartitionSpec:
        """What a data file has one value of, for each of its fields."""
        return self.transaction.table_metadata.spec()

    @property
    def location(self) -> str:
        """The table's folder; data files go below its `data/`."""
        return self.transaction.table_metadata.location

    def files(self) -> list[PresentFile]:
        """The data files that the table has now; none if it is to be created."""
        return [file for files in self._present.values() for file in files]

    def finish(self, added: Sequence[DataFile], removed: Sequence[PresentFile] = ()) -> Committed:
        """Add these files, which were written under `schema` and `spec`, and take those out, in one snapshot.

        There is no snapshot where there are neither, and no commit where the columns are as they were, too.
        """
        if added or removed:
            with _Changed(
                operation=Operation.OVERWRITE if removed else Operation.APPEND,
                transaction=self.transaction,
                io=self.transaction._table.io,
                snapshot_properties={RUN_ID: str(self.run_id)},
            ) as snapshot:
                snapshot.change(added, removed, self._present)
        elif self.table is not None and not self.transaction._updates:
            return Committed(self.table.metadata_location, has_changed=False)
        return Committed(self.transaction.commit_transaction().metadata_location, has_changed=True)

    @cached_property
    def _present(self) -> dict[str, list[PresentFile]]:
        """The files by the manifest that names them."""
        snapshot = self.table.current_snapshot() if self.table is not None else None
        if self.table is None or snapshot is None:
            return {}
        return {
            manifest.manifest_path: [
                PresentFile(entry, manifest.manifest_path) for entry in manifest.fetch_manifest_entry(self.table.io)
            ]
            for manifest in snapshot.manifests(self.table.io)
            if manifest.has_added_files() or manifest.has_existing_files()
        }


def _updates(metadata: TableMetadata, wanted: Schema, fields: Sequence[tuple[str, str]]) -> Iterator[TableUpdate]:
    schema = numbered(wanted, metadata.schema(), metadata.last_column_id)
    if schema.fields != metadata.schema().fields:
        number = max(one.schema_id for one in metadata.schemas) + 1
        yield AddSchemaUpdate(schema_=Schema(*schema.fields, schema_id=number))
        yield SetCurrentSchemaUpdate(schema_id=-1)
    spec = partitioned(fields, schema, metadata.partition_specs)
    if spec.spec_id not in metadata.specs():
        yield AddPartitionSpecUpdate(spec=spec)
    if spec.spec_id != metadata.default_spec_id:
        yield SetDefaultSpecUpdate(spec_id=spec.spec_id)


class _Transaction(Transaction):
    """A transaction that works out its metadata once per update: PyIceberg does so, with a deep copy, at each look."""

    _known: tuple[int, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        if self._known is None or self._known[0] != len(self._updates):
            self._known = (len(self._updates), super().table_metadata)
        return self._known[1]


class _Changed(_SnapshotProducer["_Changed"]):
    """A snapshot with some files more and some less, and as many manifests as before that lose none."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._entries: dict[int, list[ManifestEntry]] = defaultdict(list)
        self._touched: set[str] = set()

    def change(
        self, added: Sequence[DataFile], removed: Sequence[PresentFile], present: Mapping[str, Sequence[PresentFile]]
    ) -> None:
        """Add these files and take those out of the present ones, which are known by their manifest."""
        spec_id = self._transaction.table_metadata.default_spec_id
        for data_file in added:
            data_file.spec_id = spec_id
            self.append_data_file(data_file)
            self._entries[spec_id].append(_entry(ManifestEntryStatus.ADDED, self._snapshot_id, data_file))
        gone = {file.location for file in removed}
        self._touched = {file.manifest for file in removed}
        for manifest in self._touched:
            for file in present[manifest]:
                if file.location in gone:
                    self.delete_data_file(file.entry.data_file)
                    entry = _entry(ManifestEntryStatus.DELETED, self._snapshot_id, file.entry.data_file, file.entry)
                else:
                    snapshot_id = file.entry.snapshot_id or 0
                    entry = _entry(ManifestEntryStatus.EXISTING, snapshot_id, file.entry.data_file, file.entry)
                self._entries[file.spec_id].append(entry)

    def _deleted_entries(self) -> list[ManifestEntry]:
        return []

    def _existing_manifests(self) -> list[ManifestFile]:
        parent = self._transaction.table_metadata.snapshot_by_name("main")
        return [] if parent is None else parent.manifests(self._io)

    def _manifests(self) -> list[ManifestFile]:
        """One manifest for each partition spec, with what comes, stays and goes, and those that are not touched."""
        manifests = []
        for spec_id, entries in self._entries.items():
            with self.new_manifest_writer(self.spec(spec_id)) as writer:
                for entry in entries:
                    writer.add_entry(entry)
            manifests.append(writer.to_manifest_file())
        kept = [
            manifest
            for manifest in self._existing_manifests()
            if manifest.manifest_path not in self._touched
            and (manifest.has_added_files() or manifest.has_existing_files())
        ]
        return manifests + kept


def _entry(
    status: ManifestEntryStatus, snapshot_id: int, data_file: DataFile, before: ManifestEntry | None = None
) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=before.sequence_number if before else None,
        file_sequence_number=before.file_sequence_number if before else None,
        data_file=data_file,
    )
