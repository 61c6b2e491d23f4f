"""One commit to a table on a branch, written by ourselves: its files of metadata at the same time, then its pointer.

It makes one snapshot at most, whatever comes and goes. PyIceberg would make two for an overwrite, work out the metadata
anew for each look at it, and write file after file. Any engine reads what comes of it, and PyIceberg's own commits work
on top of it (Iceberg's spec, version 2).
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataV1, TableMetadataV2
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import (
    MetadataLogEntry,
    Operation,
    Snapshot,
    SnapshotLogEntry,
    Summary,
    UpdateMetrics,
    update_snapshot_summaries,
)
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

from contracts.names import Qualified
from shared.errors import Conflict
from shared.lakehouse.branch_catalog import SNAPSHOTS_KEPT, BranchCatalog, metadata_file
from shared.lakehouse.manifests import Manifests, NewManifests, PresentFile
from shared.lakehouse.shape import numbered, partitioned

_VERSION: Final = re.compile(r"v?(\d+)")
_OF_DELETED_ROWS: Final = ("total-delete-files", "total-position-deletes", "total-equality-deletes")
"""What a summary counts of files that say which rows of others are deleted."""


@dataclass(frozen=True)
class Committed:
    """What came of a commit."""

    location: str
    """Of the table's metadata on the branch now."""
    has_changed: bool
    """Whether there was anything to commit."""


@dataclass(frozen=True)
class Commit:
    """A commit in the making: what data files are to be written like, and then the one snapshot with them."""

    catalog: BranchCatalog
    name: Qualified
    base: Table | None
    """The table as it is; None where there is none yet."""
    metadata: TableMetadataV2
    """As it will be, but for what `finish` adds."""
    properties: Mapping[str, str]
    """Of the snapshot."""
    operation: Operation | None = None
    """What the snapshot is said to be, where what comes and goes does not tell."""

    @cached_property
    def schema(self) -> Schema:
        """The columns, with the ids that data files have to be written with."""
        return self.metadata.schema()

    @cached_property
    def spec(self) -> PartitionSpec:
        """What a data file has one value of, for each of its fields."""
        return self.metadata.spec()

    @property
    def location(self) -> str:
        """The table's folder; data files go below its `data/`."""
        return self.metadata.location

    def files(self) -> list[PresentFile]:
        """The data files that the table has now; none if it is to be created.

        `Conflict` where another engine has said of rows in these files that they are deleted: whoever reads the files
        by themselves would bring them back.
        """
        if self._before.has_deleted_rows:
            raise Conflict(
                f"table {str(self.name)!r} has delete files, which RAT never writes: have whoever wrote them compact it"
            )
        return self.all_files()

    def all_files(self) -> list[PresentFile]:
        """The same, whatever another engine has said of their rows."""
        return self._before.present(self._before.of_data)

    def finish(self, added: Sequence[DataFile], removed: Sequence[PresentFile] = ()) -> Committed:
        """Add these files, which were written under `schema` and `spec`, and take those out, in one snapshot.

        There is no snapshot where there are neither, and no commit where the columns are as they were, too. Raises what
        `BranchCatalog.move` does.
        """
        if not added and not removed and self.base is not None and self.metadata is self.base.metadata:
            return Committed(self.base.metadata_location, has_changed=False)
        now = max(int(time.time() * 1000), self.metadata.last_updated_ms)
        contents: dict[str, bytes] = {}
        metadata = self.metadata.model_copy(update={"last_updated_ms": now, "metadata_log": self._log()})
        if added or removed or self._has_lost_specs:
            snapshot, contents = self._snapshot(added, removed, now)
            past = [] if self._has_lost_specs else metadata.snapshots
            metadata = metadata.model_copy(update=_with(snapshot, past, metadata))
        location = f"{self._folder}/{self._version:05d}-{uuid4()}.metadata.json"
        contents[location] = metadata.model_dump_json().encode()
        self.catalog.files.put_all(contents)
        expected = self.base.metadata_location if self.base else None
        self.catalog.move(self.name, expected, metadata_file(location, metadata))
        return Committed(location, has_changed=True)

    @cached_property
    def _before(self) -> Manifests:
        snapshot = self.base.metadata.current_snapshot() if self.base else None
        return Manifests(self.catalog.files, snapshot)

    @property
    def _has_lost_specs(self) -> bool:
        """Whether the table was partitioned by a column that it has no more: engines fail on what tells of that."""
        return self.base is not None and not self.base.specs().keys() <= self.metadata.specs().keys()

    @property
    def _folder(self) -> str:
        return f"{self.location}/metadata"

    @property
    def _version(self) -> int:
        """The number that the metadata's name starts with, one more than before."""
        if self.base is None:
            return 0
        found = _VERSION.match(self.base.metadata_location.rpartition("/")[2])
        return int(found[1]) + 1 if found else 0

    def _log(self) -> list[MetadataLogEntry]:
        if self.base is None:
            return []
        entry = MetadataLogEntry(
            metadata_file=self.base.metadata_location, timestamp_ms=self.base.metadata.last_updated_ms
        )
        return [*self.metadata.metadata_log, entry][-SNAPSHOTS_KEPT:]

    def _snapshot(
        self, added: Sequence[DataFile], removed: Sequence[PresentFile], now: int
    ) -> tuple[Snapshot, dict[str, bytes]]:
        """The new snapshot and what is to be put for it."""
        parent = self._before.snapshot
        new = NewManifests(self.metadata, self.metadata.new_snapshot_id(), self._folder, str(uuid4()))
        sequence_number = self.metadata.next_sequence_number()
        manifests = new.of_change(self._before, added, removed)
        snapshot = Snapshot(
            snapshot_id=new.snapshot_id,
            parent_snapshot_id=parent.snapshot_id if parent else None,
            sequence_number=sequence_number,
            timestamp_ms=now,
            manifest_list=new.list_of(manifests, parent, sequence_number),
            summary=self._summary(parent, added, removed),
            schema_id=self.metadata.current_schema_id,
        )
        return snapshot, new.contents

    def _summary(self, parent: Snapshot | None, added: Sequence[DataFile], removed: Sequence[PresentFile]) -> Summary:
        counted = UpdateMetrics()
        for data_file in added:
            counted.add_file(data_file)
        for file in removed:
            counted.remove_file(file.entry.data_file)
        before = parent.summary if parent else None
        if before and self._before.holds_only(removed):
            kept = {name: value for name, value in before.additional_properties.items() if name not in _OF_DELETED_ROWS}
            before = Summary(before.operation, **kept)
        operation = Operation.APPEND if not removed else Operation.OVERWRITE if added else Operation.DELETE
        summary = update_snapshot_summaries(
            Summary(operation, **counted.to_dict(), **self.properties),
            before,
        )
        # PyIceberg refuses to count for a snapshot that only replaces files.
        return summary.model_copy(update={"operation": self.operation}) if self.operation else summary


def create(
    catalog: BranchCatalog,
    name: Qualified,
    schema: Schema,
    partitions: Sequence[tuple[str, str]],
    *,
    properties: Mapping[str, str],
    snapshot_properties: Mapping[str, str],
) -> Commit:
    """Begin a commit that makes a table of these columns, partitioned by these columns and transforms."""
    schema = numbered(schema, None, 0)
    spec = partitioned(partitions, schema, [])
    metadata = TableMetadataV2(
        location=catalog.new_folder(name),
        last_updated_ms=int(time.time() * 1000),
        last_column_id=schema.highest_field_id,
        schemas=[schema],
        current_schema_id=schema.schema_id,
        partition_specs=[spec],
        default_spec_id=spec.spec_id,
        last_partition_id=spec.last_assigned_field_id,
        sort_orders=[UNSORTED_SORT_ORDER],
        default_sort_order_id=UNSORTED_SORT_ORDER.order_id,
        properties=dict(properties),
    )
    return Commit(catalog, name, None, metadata, snapshot_properties)


def change(
    catalog: BranchCatalog,
    name: Qualified,
    table: Table,
    schema: Schema,
    partitions: Sequence[tuple[str, str]],
    *,
    snapshot_properties: Mapping[str, str],
) -> Commit:
    """Begin a commit in which a table has these columns and is partitioned so.

    A column has the id that the table knows it by, whatever id it comes with; it is another column where its values
    cannot be read as the type that is wanted.
    """
    metadata = _second_version(table.metadata)
    update = dict(_changes(metadata, schema, partitions))
    changed = metadata.model_copy(update=update) if update else metadata
    return Commit(catalog, name, table, changed, snapshot_properties)


def rewrite(catalog: BranchCatalog, name: Qualified, table: Table) -> Commit:
    """Begin a commit that leaves the rows of a table as they are, and puts them into other files."""
    metadata = _second_version(table.metadata)
    return Commit(catalog, name, table, metadata, {}, Operation.REPLACE)


def _second_version(metadata: TableMetadata) -> TableMetadataV2:
    match metadata:
        case TableMetadataV1():
            upgraded: TableMetadataV2 = metadata.to_v2()
            return upgraded
        case TableMetadataV2():
            return metadata
        case _:
            raise Conflict(
                f"the table at {metadata.location} has Iceberg's format version {metadata.format_version}, as another"
                " engine made it: it can be read, but only version 2 is written"
            )


def _changes(
    metadata: TableMetadataV2, wanted: Schema, partitions: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, Any]]:
    schema = numbered(wanted, metadata.schema(), metadata.last_column_id)
    schemas = metadata.schemas
    known = next((one for one in schemas if one.fields == schema.fields), None)
    if known is None:
        known = Schema(*schema.fields, schema_id=max(one.schema_id for one in schemas) + 1)
        yield "schemas", [*schemas, known]
        yield "last_column_id", max(metadata.last_column_id, known.highest_field_id)
    if known.schema_id != metadata.current_schema_id:
        yield "current_schema_id", known.schema_id
    specs = [spec for spec in metadata.partition_specs if {one.source_id for one in spec.fields} <= known.field_ids]
    spec = partitioned(partitions, known, metadata.partition_specs)
    if spec not in specs:
        specs.append(spec)
    if specs != metadata.partition_specs:
        yield "partition_specs", specs
        yield "last_partition_id", max(metadata.last_partition_id or 0, spec.last_assigned_field_id)
    if spec.spec_id != metadata.default_spec_id:
        yield "default_spec_id", spec.spec_id


def _with(snapshot: Snapshot, past: Sequence[Snapshot], metadata: TableMetadataV2) -> dict[str, Any]:
    """What changes in the metadata with a new snapshot: of past ones the oldest go, with what only they needed."""
    main = {"snapshot-id": snapshot.snapshot_id, "type": SnapshotRefType.BRANCH}
    refs = metadata.refs | {MAIN_BRANCH: SnapshotRef.model_validate(main)}
    referenced = {reference.snapshot_id for reference in refs.values()}
    newest = sorted([*past, snapshot], key=lambda one: one.sequence_number or 0)
    kept = [one for one in newest[:-SNAPSHOTS_KEPT] if one.snapshot_id in referenced] + newest[-SNAPSHOTS_KEPT:]
    ids = {one.snapshot_id for one in kept}
    schema_ids = {one.schema_id for one in kept} | {metadata.current_schema_id}
    entry = SnapshotLogEntry(snapshot_id=snapshot.snapshot_id, timestamp_ms=snapshot.timestamp_ms)
    return {
        "last_sequence_number": snapshot.sequence_number,
        "current_snapshot_id": snapshot.snapshot_id,
        "snapshots": kept,
        "snapshot_log": [*(one for one in metadata.snapshot_log if one.snapshot_id in ids), entry],
        "refs": {name: reference for name, reference in refs.items() if reference.snapshot_id in ids},
        "schemas": [schema for schema in metadata.schemas if schema.schema_id in schema_ids],
        "statistics": [one for one in metadata.statistics if one.snapshot_id in ids],
        "partition_statistics": [one for one in metadata.partition_statistics if one.snapshot_id in ids],
    }
