"""The Iceberg table of a pipeline on the branch of an attempt: its schema, and one commit that changes its rows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.types import IcebergType

from contracts.names import Qualified
from services.runner.config import Strategy
from services.runner.domain import FailureKind
from services.runner.problems import WorkFailed

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

    def created(self, schema: Schema) -> Transaction:
        """A transaction that makes the table."""
        properties = {**_PROPERTIES, PIPELINE_ID: str(self.pipeline_id)}
        return self.catalog.create_table_transaction(tuple(self.name), schema, properties=properties)

    def evolved(self, table: Table, changes: Sequence[tuple[str, IcebergType]]) -> Transaction:
        """A transaction in which the table has these columns, new or widened."""
        transaction = _Transaction(table)
        if changes:
            known = {field.name for field in table.schema().fields}
            with transaction.update_schema() as update:
                for name, kind in changes:
                    if name in known:
                        update.update_column((name,), field_type=kind)
                    else:
                        update.add_column((name,), kind)
        return transaction

    def append(self, transaction: Transaction, files: Iterable[DataFile]) -> None:
        """Add these files to what the table has."""
        with transaction.update_snapshot({RUN_ID: str(self.run_id)}).merge_append() as snapshot:
            for file in files:
                snapshot.append_data_file(file)

    def replace(self, transaction: Transaction, files: Sequence[DataFile]) -> bool:
        """Make these files all that the table has, in one snapshot; False if it has none and gets none."""
        present = _present_entries(transaction)
        if not present and not files:
            return False
        with _Replacement(
            operation=Operation.OVERWRITE if present else Operation.APPEND,
            transaction=transaction,
            io=transaction._table.io,
            snapshot_properties={RUN_ID: str(self.run_id)},
        ) as snapshot:
            for entry in present:
                snapshot.take_out(entry)
            for file in files:
                snapshot.append_data_file(file)
        return True


class _Transaction(Transaction):
    """A transaction that works out its metadata once per update: PyIceberg does so, with a deep copy, at each look."""

    _known: tuple[int, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        if self._known is None or self._known[0] != len(self._updates):
            self._known = (len(self._updates), super().table_metadata)
        return self._known[1]


class _Replacement(_SnapshotProducer["_Replacement"]):
    """A snapshot without any of the files before it. PyIceberg's own keeps the manifests of all that ever was."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._taken_out: list[ManifestEntry] = []

    def take_out(self, entry: ManifestEntry) -> None:
        """Leave a file of the present snapshot out of the new one."""
        self.delete_data_file(entry.data_file)
        self._taken_out.append(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.DELETED,
                snapshot_id=self._snapshot_id,
                sequence_number=entry.sequence_number,
                file_sequence_number=entry.file_sequence_number,
                data_file=entry.data_file,
            )
        )

    def _deleted_entries(self) -> list[ManifestEntry]:
        return self._taken_out

    def _existing_manifests(self) -> list[ManifestFile]:
        return []

    def _manifests(self) -> list[ManifestFile]:
        """One manifest for each partition spec, with what comes and what goes."""
        entries: dict[int, list[ManifestEntry]] = defaultdict(list)
        default_spec = self._transaction.table_metadata.default_spec_id
        for data_file in self._added_data_files:
            entries[default_spec].append(
                ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self._snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=data_file,
                )
            )
        for entry in self._taken_out:
            entries[entry.data_file.spec_id].append(entry)
        manifests = []
        for spec_id, of_spec in entries.items():
            with self.new_manifest_writer(self.spec(spec_id)) as writer:
                for entry in of_spec:
                    writer.add_entry(entry)
            manifests.append(writer.to_manifest_file())
        return manifests


def _present_entries(transaction: Transaction) -> list[ManifestEntry]:
    """What the table holds now, manifest by manifest; those without a file of theirs are not opened."""
    snapshot = transaction.table_metadata.current_snapshot()
    if snapshot is None:
        return []
    io = transaction._table.io
    return [
        entry
        for manifest in snapshot.manifests(io)
        if manifest.has_added_files() or manifest.has_existing_files()
        for entry in manifest.fetch_manifest_entry(io)
    ]
