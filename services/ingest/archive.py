"""What was read moves to `_processed/`, and what was deleted leaves the store, when no run reads it any more."""

from typing import Final
from uuid import UUID

import asyncpg
import structlog

from services.ingest.claims import say_processed
from services.ingest.keys import processed_key
from services.ingest.store import archive, zones
from services.ingest.store.archive import ArchivableFile, Deletion
from shared.database import Connection, transaction
from shared.errors import Forbidden, Invalid, NotFound
from shared.object_store import ObjectStore

log = structlog.get_logger()

_REFUSED: Final = (Invalid, Forbidden)
"""What the store has against one object, and not against the next: its name is too long, or it is locked."""


async def archive_read_files(db: asyncpg.Pool, objects: ObjectStore) -> None:
    """Archive what every reader of its zone has read, and say `file.processed` of the runs that waited for it."""
    runs = await archive.unsaid_runs(db)
    for zone_id in await archive.zones_to_look_at(db):
        async with transaction(db) as connection:
            await zones.await_claims(connection, zone_id)
            await archive.take_out(connection, zone_id)
    await _move_all(db, objects)
    for run_id in runs:
        async with transaction(db) as connection:
            if (pipeline := await archive.claim_saying(connection, run_id)) is not None:
                await say_processed(connection, run_id, *pipeline)


async def _move_all(db: asyncpg.Pool, objects: ObjectStore) -> None:
    tried: list[UUID] = []
    while True:
        try:
            async with transaction(db) as connection:
                file = await archive.next_to_move(connection, tried)
                if file is None:
                    return
                tried.append(file.id)
                await _move(connection, objects, file)
        except _REFUSED as error:
            log.warning("a file could not be archived", file_id=str(tried[-1]), error=error.message)


async def _move(connection: Connection, objects: ObjectStore, file: ArchivableFile) -> None:
    """Copy a version to its place in the archive, and have the original deleted; repeated, it does the same again."""
    target = processed_key(file.place, file.run_id)
    try:
        copied = await objects.copy(file.place.key, target, version_id=file.version_id)
    except NotFound:
        # The original is only deleted after this transaction, so it was somebody else who did it.
        log.warning("a file was gone before it could be archived", key=file.place.key, version_id=file.version_id)
        await archive.note_lost(connection, file.id)
        return
    await archive.note_moved(connection, file.id, target, copied.version_id or "null")
    await archive.ask_to_delete_version(connection, file)


async def delete_from_store(db: asyncpg.Pool, objects: ObjectStore) -> None:
    """Delete from the store what was asked for, where no unsettled run holds a file of the name."""
    async with transaction(db) as connection:
        await archive.expire(connection)
    for zone_id in await archive.zones_to_clear(db):
        async with transaction(db) as connection:
            await zones.await_claims(connection, zone_id)
            await archive.clear(connection, zone_id)
    await _delete_all(db, objects)


async def _delete_all(db: asyncpg.Pool, objects: ObjectStore) -> None:
    tried: list[Deletion] = []
    while True:
        try:
            async with transaction(db) as connection:
                deletion = await archive.next_deletion(connection, tried)
                if deletion is None:
                    return
                tried.append(deletion)
                await _delete(objects, deletion)
                await archive.note_deleted(connection, deletion)
        except _REFUSED as error:
            log.warning("a file could not be deleted from the store", key=tried[-1].key, error=error.message)


async def _delete(objects: ObjectStore, deletion: Deletion) -> None:
    """Delete a version and those below it, the oldest first: an older one must never show again."""
    found: list[str] = []
    async for version in objects.versions(deletion.key):
        if version.key != deletion.key:
            break
        if found or version.version_id == deletion.version_id:
            found.append(version.version_id)
    for version_id in reversed(found):
        await objects.delete(deletion.key, version_id)
