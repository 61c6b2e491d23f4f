"""Rows of a table that another engine has deleted, in Iceberg's way of saying so beside the data files."""

from typing import Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.typedef import Record

from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.manifests import Manifests, entry_of

_FIELD_ID: Final = b"PARQUET:field_id"
_SCHEMA: Final = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={_FIELD_ID: b"2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={_FIELD_ID: b"2147483545"}),
    ]
)
"""Of a file of deleted positions (Iceberg's spec, "Position Delete Files")."""


class _OfDeletes(ManifestWriterV2):
    """PyIceberg writes none."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


def delete_rows(catalog: BranchCatalog, table: Table, data_file: str, *positions: int) -> None:
    """Delete the rows at these places of a data file, as an engine does that leaves the file as it is."""
    snapshot_id, folder = table.metadata.new_snapshot_id(), f"{table.location()}/metadata"
    deletes = _put_positions(table, data_file, positions)
    manifest_file = table.io.new_output(f"{folder}/{uuid4()}-m0.avro")
    with _OfDeletes(table.spec(), table.schema(), manifest_file, snapshot_id, "deflate") as manifest:
        manifest.add_entry(entry_of(ManifestEntryStatus.ADDED, snapshot_id, deletes))
    before = table.current_snapshot()
    assert before is not None, "the table has rows"
    list_file = table.io.new_output(f"{folder}/snap-{snapshot_id}.avro")
    sequence_number = table.metadata.next_sequence_number()
    with write_manifest_list(
        2, list_file, snapshot_id, before.snapshot_id, sequence_number, "deflate"
    ) as manifest_list:
        manifest_list.add_manifests([*Manifests(catalog.files, before).live, manifest.to_manifest_file()])
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=before.snapshot_id,
        sequence_number=sequence_number,
        timestamp_ms=before.timestamp_ms + 1,
        manifest_list=list_file.location,
        summary=Summary(Operation.DELETE, **{"total-delete-files": "1", "total-position-deletes": str(len(positions))}),
        schema_id=table.schema().schema_id,
    )
    catalog.commit_table(
        table,
        (AssertRefSnapshotId(ref="main", snapshot_id=before.snapshot_id),),
        (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id),
        ),
    )


def _put_positions(table: Table, data_file: str, positions: tuple[int, ...]) -> DataFile:
    sink = pa.BufferOutputStream()
    rows = [{"file_path": data_file, "pos": position} for position in sorted(positions)]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink)
    content = sink.getvalue().to_pybytes()
    file = table.io.new_output(f"{table.location()}/data/{uuid4()}-deletes.parquet")
    with file.create() as stream:
        stream.write(content)
    partition = next(task.file.partition for task in table.scan().plan_files() if task.file.file_path == data_file)
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=file.location,
        file_format=FileFormat.PARQUET,
        partition=Record(*partition),
        record_count=len(positions),
        file_size_in_bytes=len(content),
    )
    deletes.spec_id = table.spec().spec_id
    return deletes
