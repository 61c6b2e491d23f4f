"""Collection of files that no table needs any more, on any lakehouse: what is needed is marked, the rest is swept.

Needed is what the tables of main, of any branch and of any entry of the log that is to stay readable consist of. What
is listed is listed before that is found out, and what is young stays: a run may have written it and not committed yet.

PyIceberg takes most of a second to import: only who collects imports this module.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from pyiceberg.exceptions import ValidationError
from pyiceberg.manifest import ManifestFile, read_manifest_list
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata

from contracts.maintenance import CollectedFiles, CollectedTable
from contracts.names import QUALIFIED_PATTERN
from shared.errors import Conflict
from shared.lakehouse.files import TableFiles
from shared.lakehouse.port import Lakehouse, Relation, RelationKind
from shared.object_store import ObjectStore, Version

log = structlog.get_logger()

_AT_ONCE: Final = 8
_FILE: Final = re.compile(r"(?P<table>[^/]+/[^/]+/[^/]+)/.*(?:data|metadata)/.*")
"""The key of a file of a table; a folder of its own lies between, as two branches may create the same name."""
_TABLES_TOLD: Final = 500


@dataclass(frozen=True)
class Surplus:
    """Files that no table needs, and how many there are that one does."""

    versions: Sequence[Version]
    needed: int
    young: int
    """Files that no table needs so far, and that may be of a run that goes on."""

    def report(self) -> CollectedFiles:
        """What there is to collect, or was, by table."""
        files: dict[str, int] = defaultdict(int)
        sizes: dict[str, int] = defaultdict(int)
        for version in self.versions:
            if not version.is_deletion:
                table = _table_of(version.key)
                files[table] += 1
                sizes[table] += version.size
        tables = [CollectedTable(table=table, files=files[table], bytes=sizes[table]) for table in files]
        return CollectedFiles(
            files=sum(files.values()),
            bytes=sum(sizes.values()),
            needed_files=self.needed,
            young_files=self.young,
            tables=sorted(tables, key=lambda table: (-table.bytes, table.table))[:_TABLES_TOLD],
        )


async def find_surplus(
    lakehouse: Lakehouse,
    objects: ObjectStore,
    files: TableFiles,
    *,
    grace: timedelta,
    history: timedelta | None = None,
) -> Surplus:
    """Find the files that no table needs and that are older than the grace, which is longer than any run takes.

    Entries of the log stay readable for as long as `history` says, or for good. `Conflict`, and nothing is found, when
    a file is missing by which one would know what is needed.
    """
    now = datetime.now(UTC)
    listed = [version async for version in _listed(lakehouse, objects)]
    # Branches before main's log: what is merged meanwhile is seen on the one or on the other.
    live = await lakehouse.live_metadata()
    past = await lakehouse.past_metadata(None if history is None else now - history)
    needed, strange = await asyncio.to_thread(_needed, files, live, past - live)
    surplus = [version for version in listed if version.key not in needed and _table_of(version.key) not in strange]
    old = [version for version in surplus if version.modified_at < now - grace]
    return Surplus(old, needed=len(listed) - len(surplus), young=len(surplus) - len(old))


async def remove(objects: ObjectStore, surplus: Surplus) -> None:
    """Remove these files for good; it may be broken off and done again."""
    # Metadata first: without it, nobody asks any more for what it tells of.
    heads = [version for version in surplus.versions if version.key.endswith(".metadata.json")]
    rest = [version for version in surplus.versions if not version.key.endswith(".metadata.json")]
    places = asyncio.Semaphore(_AT_ONCE)

    async def remove_one(version: Version) -> None:
        async with places:
            await objects.delete(version.key, version.version_id)

    for versions in (heads, rest):
        await asyncio.gather(*(remove_one(version) for version in versions))


async def _listed(lakehouse: Lakehouse, objects: ObjectStore) -> AsyncIterator[Version]:
    for namespace in sorted(await lakehouse.namespaces()):
        if namespace.count(".") != 1:
            continue
        async for version in objects.versions(f"{namespace.replace('.', '/')}/"):
            place = _FILE.fullmatch(version.key)
            if place and re.fullmatch(QUALIFIED_PATTERN, _table_of(version.key)):
                yield version


def _table_of(key: str) -> str:
    return ".".join(key.split("/")[:3])


def _needed(files: TableFiles, live: Collection[Relation], past: Collection[Relation]) -> tuple[set[str], set[str]]:
    """The keys of all files that these tables and views consist of, and tables of which nobody here can tell."""
    # A view is its metadata file, and nothing else.
    needed = {found.location for found in (*live, *past) if found.kind is RelationKind.VIEW}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        metadata = [
            *threads.map(lambda location: _metadata(files, location), _tables(live)),
            # What is gone of the past was collected when less of it was to stay readable.
            *(found for found in threads.map(lambda location: _past_metadata(files, location), _tables(past)) if found),
        ]
        lists: set[str] = set()
        strange: set[str] = set()
        for location, table in metadata:
            needed.add(location)
            if table is None:
                strange.add(_table_of(_key(location)))
                continue
            lists.update(snapshot.manifest_list for snapshot in table.snapshots)
            needed.update(statistics.statistics_path for statistics in table.statistics)
            needed.update(statistics.statistics_path for statistics in table.partition_statistics)
        manifests = {
            manifest.manifest_path: manifest
            for found in threads.map(lambda location: _manifests(files, location), lists)
            for manifest in found
        }
        for paths in threads.map(lambda manifest: _data_files(files, manifest), manifests.values()):
            needed.update(paths)
    return {_key(location) for location in needed | lists | manifests.keys()}, strange


def _tables(relations: Iterable[Relation]) -> list[str]:
    return [found.location for found in relations if found.kind is RelationKind.TABLE]


def _metadata(files: TableFiles, location: str) -> tuple[str, TableMetadata | None]:
    with _needed_by("a table on main or on a branch", location):
        return location, _understood(files, location)


def _past_metadata(files: TableFiles, location: str) -> tuple[str, TableMetadata | None] | None:
    try:
        return location, _understood(files, location)
    except FileNotFoundError:
        return None


def _understood(files: TableFiles, location: str) -> TableMetadata | None:
    """The metadata; None where only a newer engine can read it, and so knows what the table needs."""
    try:
        return FromInputFile.table_metadata(files.new_input(location))
    except (ValidationError, ValueError) as error:
        log.warning("nothing of a table is collected", location=location, error=str(error).partition("\n")[0])
        return None


def _manifests(files: TableFiles, location: str) -> list[ManifestFile]:
    with _needed_by("a table", location):
        return list(read_manifest_list(files.new_input(location)))


def _data_files(files: TableFiles, manifest: ManifestFile) -> list[str]:
    with _needed_by("a table", manifest.manifest_path):
        return [entry.data_file.file_path for entry in manifest.fetch_manifest_entry(files, discard_deleted=True)]


@contextmanager
def _needed_by(what: str, location: str) -> Iterator[None]:
    """Raise `Conflict` where the file is missing: without it, nobody knows what else is needed."""
    try:
        yield
    except FileNotFoundError as error:
        raise Conflict(f"{location} is missing, which {what} needs: nothing is collected") from error


def _key(location: str) -> str:
    """A location without its bucket."""
    return location.removeprefix("s3://").partition("/")[2]
