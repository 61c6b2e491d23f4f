"""Manifests of a table: which data files it has, and new ones for those that come and go, made in memory."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import count
from typing import Final

from pyiceberg.io import InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    read_manifest_list,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadataV2
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.typedef import Record

from shared.errors import Conflict
from shared.lakehouse.files import TableFiles

MERGED_AT: Final = 20
"""Small manifests that are made one: a scan opens every manifest, and after 300 appends it would take a second."""
_SMALL: Final = 100
"""Files of a manifest beyond which it is left alone: each merge writes all that it merges anew."""
_CODEC: Final = "deflate"


@dataclass(frozen=True)
class PresentFile:
    """A data file that a table has now."""

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
    def size_bytes(self) -> int:
        """How big it is."""
        return self.entry.data_file.file_size_in_bytes

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
class Manifests:
    """The manifests of a snapshot; none where there is none."""

    files: TableFiles
    snapshot: Snapshot | None
    _read: dict[str, list[PresentFile]] = field(default_factory=dict)

    @cached_property
    def live(self) -> list[ManifestFile]:
        """Those that name a file which the table has, or rows of such a file that are deleted."""
        if self.snapshot is None:
            return []
        return [
            manifest
            for manifest in read_manifest_list(self.files.new_input(self.snapshot.manifest_list))
            if manifest.has_added_files() or manifest.has_existing_files()
        ]

    @cached_property
    def of_data(self) -> list[ManifestFile]:
        """The live ones that name data files; Iceberg's first version has no others, and does not say so."""
        return [manifest for manifest in self.live if manifest.content is not ManifestContent.DELETES]

    @cached_property
    def has_deleted_rows(self) -> bool:
        """Whether there are files that say which rows of others are deleted."""
        return len(self.of_data) < len(self.live)

    def holds_only(self, files: Sequence[PresentFile]) -> bool:
        """Whether these are all data files of the table."""
        return len(files) == sum(files_of(manifest) for manifest in self.of_data)

    def present(self, manifests: Iterable[ManifestFile]) -> list[PresentFile]:
        """The data files of these manifests that the table has."""
        wanted = list(manifests)
        unread = [manifest for manifest in wanted if manifest.manifest_path not in self._read]
        self.files.read_all(manifest.manifest_path for manifest in unread)
        for manifest in unread:
            self._read[manifest.manifest_path] = [
                PresentFile(entry, manifest.manifest_path) for entry in manifest.fetch_manifest_entry(self.files)
            ]
        return [file for manifest in wanted for file in self._read[manifest.manifest_path]]


@dataclass
class NewManifests:
    """The manifests of a new snapshot: those that stay as they are, and new ones, in memory until they are put."""

    metadata: TableMetadataV2
    """Of the table as it will be, but for the snapshot."""
    snapshot_id: int
    folder: str
    """Where the files of metadata are."""
    prefix: str
    """What the names of new manifests start with."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Location of a new file → what is in it."""

    def of_change(
        self, before: Manifests, added: Sequence[DataFile], removed: Sequence[PresentFile]
    ) -> list[ManifestFile]:
        """The manifests of a snapshot with these files more and those less, newest first.

        `Conflict` where files stay that are partitioned by a column that the table will not have.
        """
        specs = self.metadata.specs()
        lost = {manifest.manifest_path for manifest in before.of_data if manifest.partition_spec_id not in specs}
        touched = {file.manifest for file in removed} | lost
        gone = {file.location for file in removed}
        rest = [manifest for manifest in before.of_data if manifest.manifest_path not in touched]
        default = self.metadata.default_spec_id
        merged = self._to_merge(rest, default) if added else []
        written = [manifest for manifest in before.of_data if manifest.manifest_path in touched]
        entries: dict[int, list[ManifestEntry]] = defaultdict(list)
        entries[default] += [entry_of(ManifestEntryStatus.ADDED, self.snapshot_id, data_file) for data_file in added]
        for file in before.present([*written, *merged]):
            if file.spec_id not in specs:
                if file.location not in gone:
                    raise Conflict(f"{file.location} stays, and the column goes that it is partitioned by")
                continue
            status = ManifestEntryStatus.DELETED if file.location in gone else ManifestEntryStatus.EXISTING
            snapshot_id = self.snapshot_id if status is ManifestEntryStatus.DELETED else file.entry.snapshot_id
            entries[file.spec_id].append(entry_of(status, snapshot_id, file.entry.data_file, file.entry))
        new = [self._written(number, spec_id, of_spec) for number, (spec_id, of_spec) in zip(count(), entries.items())]
        # What says that rows are deleted goes with the last of the files that it may be about.
        unchanged = [] if before.holds_only(removed) else before.live
        return [
            *(manifest for manifest in new if manifest is not None),
            *(manifest for manifest in unchanged if manifest not in written and manifest not in merged),
        ]

    def list_of(self, manifests: list[ManifestFile], parent: Snapshot | None, sequence_number: int) -> str:
        """Put the manifests on a list, and say where it will be."""
        file = _InMemory(f"{self.folder}/snap-{self.snapshot_id}-0-{self.prefix}.avro")
        parent_id = parent.snapshot_id if parent else None
        with write_manifest_list(2, file, self.snapshot_id, parent_id, sequence_number, _CODEC) as writer:
            writer.add_manifests(manifests)
        self.contents[file.location] = file.content
        return file.location

    def _to_merge(self, manifests: Sequence[ManifestFile], spec_id: int) -> list[ManifestFile]:
        """The small manifests of a spec, once there are enough of them that one is better."""
        small = [one for one in manifests if one.partition_spec_id == spec_id and files_of(one) < _SMALL]
        return small if len(small) + 1 >= MERGED_AT else []

    def _written(self, number: int, spec_id: int, entries: Sequence[ManifestEntry]) -> ManifestFile | None:
        spec = self.metadata.specs()[spec_id]
        if not entries or self._is_over(spec, entries):
            return None
        file = _InMemory(f"{self.folder}/{self.prefix}-m{number}.avro")
        with write_manifest(2, spec, self._schema_of(spec), file, self.snapshot_id, _CODEC) as writer:
            for entry in entries:
                writer.add_entry(entry)
        self.contents[file.location] = file.content
        return writer.to_manifest_file()

    def _is_over(self, spec: PartitionSpec, entries: Sequence[ManifestEntry]) -> bool:
        """Whether a spec is made of a column that is gone, and has no files: DuckDB dies of reading such a manifest."""
        is_whole = {one.source_id for one in spec.fields} <= self.metadata.schema().field_ids
        return not is_whole and all(entry.status is ManifestEntryStatus.DELETED for entry in entries)

    def _schema_of(self, spec: PartitionSpec) -> Schema:
        """The newest schema with all columns that a spec is made of; one that is no more may have lost some."""
        wanted = {one.source_id for one in spec.fields}
        schemas = [self.metadata.schema(), *reversed(self.metadata.schemas)]
        return next((one for one in schemas if wanted <= one.field_ids), schemas[0])


def entry_of(
    status: ManifestEntryStatus, snapshot_id: int | None, data_file: DataFile, before: ManifestEntry | None = None
) -> ManifestEntry:
    """The entry of a file, with the sequence numbers that it has already; a new one gets those of its snapshot."""
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=before.sequence_number if before else None,
        file_sequence_number=before.file_sequence_number if before else None,
        data_file=data_file,
    )


def files_of(manifest: ManifestFile) -> int:
    """How many files a manifest names that the table has."""
    return (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)


class _InMemory(OutputFile, InputFile):
    """A file that PyIceberg writes and nobody has put yet."""

    content = b""

    def __len__(self) -> int:
        return len(self.content)

    def exists(self) -> bool:
        return False

    def open(self, seekable: bool = True) -> InputStream:
        return BytesIO(self.content)

    def create(self, overwrite: bool = False) -> OutputStream:
        return _Written(self)

    def to_input_file(self) -> InputFile:
        return self


class _Written(BytesIO):
    """What is written to a file in memory, which has it once it is closed."""

    def __init__(self, file: _InMemory) -> None:
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            self._file.content = self.getvalue()
        super().close()
