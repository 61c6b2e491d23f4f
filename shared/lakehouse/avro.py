"""Manifests and lists of them as Avro files: PyIceberg's own, but what follows from a schema is worked out once.

PyIceberg translates the schema of a file, and builds what reads or writes it, anew for each file. That is nearly all
that a small manifest costs, and a commit reads two such files and writes two. What a large one costs is to write each
of its data files, most of which were read from another: those are written as they were.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, lru_cache
from itertools import chain, count
from typing import Any, Final, Literal, TypeAlias, TypeVar

from pyiceberg.avro.codecs import AVRO_CODEC_KEY
from pyiceberg.avro.decoder import BinaryDecoder, new_decoder
from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.file import MAGIC, META_SCHEMA, SYNC_SIZE, AvroFileHeader, AvroOutputFile
from pyiceberg.avro.reader import Reader, StructReader
from pyiceberg.avro.resolver import construct_reader, construct_writer, resolve_reader
from pyiceberg.avro.writer import StructWriter, Writer
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.manifest import (
    MANIFEST_ENTRY_SCHEMAS,
    MANIFEST_LIST_FILE_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestListWriterV2,
    ManifestWriterV2,
    PartitionFieldSummary,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.typedef import StructProtocol
from pyiceberg.types import StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

R = TypeVar("R", bound=StructProtocol)
Kind: TypeAlias = Literal["manifest_entry", "manifest_file"]
"""What a file has one of in each record, by the name that Iceberg gives it."""

_VERSION: Final = 2
_CODEC: Final = "deflate"
_SCHEMA_KEY: Final = "avro.schema"
_KEPT: Final = 256
"""Schemas: tables that are partitioned alike have the same, and those that are not at all."""


class _NamedFile(DataFile):
    """A data file that a manifest names."""

    schema: str
    """Of that manifest."""
    place: slice
    """Where it is in its block."""
    written: bytes
    """What stands there."""


_READ_TYPES: Final[Mapping[Kind, dict[int, Callable[..., StructProtocol]]]] = {
    "manifest_entry": {-1: ManifestEntry, 2: _NamedFile},
    "manifest_file": {-1: ManifestFile, 508: PartitionFieldSummary},
}
_DATA_FILE: Final = 4
"""The place of the data file in an entry of a manifest."""

_READ_ENUMS: Final[Mapping[Kind, dict[int, Callable[..., Enum]]]] = {
    "manifest_entry": {0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    "manifest_file": {517: ManifestContent},
}


# Reading


def read_manifest_list(file: InputFile) -> list[ManifestFile]:
    """The manifests on a list."""
    return [manifest for block in _blocks(file, "manifest_file") for manifest in block.records()]


def read_manifest(file: InputFile, manifest: ManifestFile) -> list[ManifestEntry]:
    """The entries of a manifest that name files which the table has, with what they inherit from the manifest."""
    entries: list[ManifestEntry] = []
    for block in _blocks(file, "manifest_entry"):
        for entry in block.records():
            if entry.status is not ManifestEntryStatus.DELETED:
                entry.data_file.schema, entry.data_file.written = block.schema, block.content[entry.data_file.place]
                _inherit(entry, manifest)
                entries.append(entry)
    return entries


def _inherit(entry: ManifestEntry, manifest: ManifestFile) -> None:
    """What stands in a manifest once, for all its entries (Iceberg's spec, sequence number inheritance)."""
    entry.data_file.spec_id = manifest.partition_spec_id
    if entry.snapshot_id is None and manifest.added_snapshot_id is not None:
        entry.snapshot_id = manifest.added_snapshot_id
    if manifest.sequence_number == 0 or entry.status is ManifestEntryStatus.ADDED:
        if entry.sequence_number is None:
            entry.sequence_number = manifest.sequence_number
        if entry.file_sequence_number is None:
            entry.file_sequence_number = manifest.sequence_number


@dataclass(frozen=True)
class _Block:
    """Records that stand together in an Avro file."""

    schema: str
    """Of the file, as JSON."""
    kind: Kind
    count: int
    content: bytes

    def records(self) -> Iterator[Any]:
        decoder, reader = new_decoder(self.content), _reader(self.schema, self.kind)
        return (reader.read(decoder) for _ in range(self.count))


def _blocks(file: InputFile, kind: Kind) -> Iterator[_Block]:
    """What follows the header of an Avro file (Avro's specification, Object Container Files)."""
    with file.open() as stream:
        decoder = new_decoder(stream.read())
    header = _header_reader().read(decoder)
    codec = header.compression_codec()
    while True:
        try:
            count = decoder.read_int()
        except EOFError:
            return
        content = decoder.read_bytes()
        yield _Block(header.meta[_SCHEMA_KEY], kind, count, codec.decompress(content) if codec else content)
        if (found := decoder.read(SYNC_SIZE)) != header.sync:
            raise ValueError(f"{file.location}: a block ends with {found!r}, and not with {header.sync!r}")


@cache
def _header_reader() -> Reader:
    return construct_reader(META_SCHEMA, {-1: AvroFileHeader})


@lru_cache(_KEPT)
def _reader(schema: str, kind: Kind) -> Reader:
    """What reads the records of files with this schema, as JSON."""
    wanted = MANIFEST_ENTRY_SCHEMAS if kind == "manifest_entry" else MANIFEST_LIST_FILE_SCHEMAS
    written = AvroSchemaConversion().avro_to_iceberg(json.loads(schema))
    reader = resolve_reader(written, wanted[_VERSION], _READ_TYPES[kind], _READ_ENUMS[kind])
    if kind == "manifest_file":
        return reader
    assert isinstance(reader, StructReader), "an entry of a manifest is a struct"
    fields = [(place, _FileReader(field) if place == _DATA_FILE else field) for place, field in reader.field_readers]
    return StructReader(tuple(fields), reader.create_struct, reader.struct)


class _FileReader(Reader):
    """Reads a data file, and notes where it stands."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, decoder: BinaryDecoder) -> _NamedFile:
        begin = decoder.tell()
        file: _NamedFile = self._reader.read(decoder)
        file.place = slice(begin, decoder.tell())
        return file

    def skip(self, decoder: BinaryDecoder) -> None:
        self._reader.skip(decoder)


# Writing


def write_manifest(spec: PartitionSpec, schema: Schema, file: OutputFile, snapshot_id: int) -> ManifestWriterV2:
    """What writes entries to a manifest of version 2, as PyIceberg's function of this name does."""
    return _ManifestWriter(spec, schema, file, snapshot_id, _CODEC)


def write_manifest_list(
    file: OutputFile, snapshot_id: int, parent_id: int | None, sequence_number: int
) -> ManifestListWriterV2:
    """What writes manifests to a list of version 2, likewise."""
    return _ListWriter(file, snapshot_id, parent_id, sequence_number, _CODEC)


class _ManifestWriter(ManifestWriterV2):
    def new_writer(self) -> AvroOutputFile[ManifestEntry]:
        layout = _layout_of_manifest(self._spec.partition_type(self._schema))
        return _Output[ManifestEntry](self._output_file, layout, self._meta)


class _ListWriter(ManifestListWriterV2):
    def __enter__(self) -> "_ListWriter":
        self._writer = _Output[ManifestFile](self._output_file, _layout_of_list(), self._meta)
        self._writer.__enter__()
        return self


@dataclass(frozen=True)
class _Layout:
    """What files of one schema have in common."""

    schema: Schema
    header: str
    """The schema as it stands in the file."""
    writer: Writer
    """Of one record."""


@lru_cache(_KEPT)
def _layout_of_manifest(partition: StructType) -> _Layout:
    data_file = data_file_with_partition(partition, _VERSION)
    layout = _layout(manifest_entry_schema_with_data_file(_VERSION, data_file), "manifest_entry")
    assert isinstance(layout.writer, StructWriter), "an entry of a manifest is a struct"
    fields = [
        (place, _FileWriter(field, layout.header) if place == _DATA_FILE else field)
        for place, field in layout.writer.field_writers
    ]
    return replace(layout, writer=StructWriter(tuple(fields)))


@cache
def _layout_of_list() -> _Layout:
    return _layout(MANIFEST_LIST_FILE_SCHEMAS[_VERSION], "manifest_file")


def _layout(schema: Schema, kind: Kind) -> _Layout:
    avro = AvroSchemaConversion().iceberg_to_avro(schema, schema_name=kind)
    return _Layout(schema, json.dumps(_named_once(avro, set())), construct_writer(schema))


def _named_once(avro: Any, taken: set[str]) -> Any:
    """The schema with a name of its own for each fixed type: Avro has a name defined once (its specification, Names).

    PyIceberg defines `decimal_9_2` for each partition field that is one. Iceberg goes by the ids of fields.
    """
    match avro:
        case {"type": "fixed", "name": str(name)}:
            names = chain([name], (f"{name}_{number}" for number in count(2)))
            own = next(free for free in names if free not in taken)
            taken.add(own)
            return {**avro, "name": own}
        case dict():
            return {key: _named_once(value, taken) for key, value in avro.items()}
        case list():
            return [_named_once(value, taken) for value in avro]
        case _:
            return avro


@dataclass(frozen=True)
class _FileWriter(Writer):
    """Writes a data file: one that another manifest of the same schema names, as it stands there."""

    writer: Writer
    schema: str

    def write(self, encoder: BinaryEncoder, file: DataFile) -> None:
        if isinstance(file, _NamedFile) and file.schema == self.schema:
            encoder.write(file.written)
        else:
            self.writer.write(encoder, file)


class _Output(AvroOutputFile[R]):
    """An Avro file that is written."""

    def __init__(self, output_file: OutputFile, layout: _Layout, metadata: dict[str, str]) -> None:
        # PyIceberg's own would work out the writer.
        self.output_file = output_file
        self.file_schema = layout.schema
        self.sync_bytes = os.urandom(SYNC_SIZE)
        self.writer = layout.writer
        self.metadata = metadata
        self._header = layout.header

    def _write_header(self) -> None:
        meta = {**self.metadata, _SCHEMA_KEY: self._header, AVRO_CODEC_KEY: _CODEC}
        _header_writer().write(self.encoder, AvroFileHeader(MAGIC, meta, self.sync_bytes))


@cache
def _header_writer() -> Writer:
    return construct_writer(META_SCHEMA)
