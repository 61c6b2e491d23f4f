"""What was read moves to `_processed/`, and what was deleted leaves the store, when no run reads it any more."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import structlog

from services.ingest.claims import say_processed
from services.ingest.domain import pause_after
from services.ingest.keys import processed_key, zone_prefix
from services.ingest.store import archive, zones
from services.ingest.store.archive import ArchivableFile, Deletion
from shared.database import Connection, transaction
from shared.errors import Conflict, Declined, Forbidden, Invalid, NotFound, Unavailable
from shared.object_store import ObjectStore

log = structlog.get_logger()


async def archive_read_files(db: asyncpg.Pool, objects: ObjectStore) -> None:
    """Archive what every reader of its zone has read, and say `file.processed` of the runs that waited for it."""
    runs = await archive.unsaid_runs(db)
    for zone_id in await archive.zones_to_look_at(db):
        async with transaction(db) as connection:
            await zones.await_claims(connection, zone_id)
            await archive.take_out(connection, zone_id)
    await _one_by_one(db, partial(_move_next, objects))
    for run_id in runs:
        async with transaction(db) as connection:
            if (pipeline := await archive.claim_saying(connection, run_id)) is not None:
                await say_processed(connection, run_id, *pipeline)


async def _move_next(objects: ObjectStore, connection: Connection) -> bool:
    """Archive a file, or put off one that the store does not take; whether there was any."""
    file = await archive.next_to_move(connection)
    if file is None:
        return False
    try:
        await _move(connection, objects, file)
    except Declined as error:
        pause = pause_after(file.tries + 1)
        log.warning("a file could not be archived", file_id=str(file.id), error=error.message, again_in=str(pause))
        await archive.put_off_move(connection, file.id, pause, f"it cannot be archived: {error.message}")
    return True


async def _move(connection: Connection, objects: ObjectStore, file: ArchivableFile) -> None:
    """Copy a version to its place in the archive, and have the original deleted; repeated, it does the same again."""
    target = processed_key(file.place, file.run_id)
    try:
        async with _declined(objects):
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
    await _one_by_one(db, partial(_delete_next, objects))


async def _delete_next(objects: ObjectStore, connection: Connection) -> bool:
    """Delete a version with those below it, or put off one that the store keeps; whether there was any."""
    deletion = await archive.next_deletion(connection)
    if deletion is None:
        return False
    try:
        async with _declined(objects):
            await _delete(objects, deletion)
    except Declined as error:
        pause = pause_after(deletion.tries + 1)
        log.warning("a file could not be deleted", key=deletion.key, error=error.message, again_in=str(pause))
        await archive.put_off_deletion(connection, deletion, pause)
    else:
        await archive.note_deleted(connection, deletion)
    return True


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


async def _one_by_one(db: asyncpg.Pool, do_next: Callable[[Connection], Awaitable[bool]]) -> None:
    """Do what is to be done, each in a transaction of its own, until there is nothing left to do now."""
    while True:
        async with transaction(db) as connection:
            if not await do_next(connection):
                return


@asynccontextmanager
async def _declined(objects: ObjectStore) -> AsyncIterator[None]:
    """Raise `Declined` for what the store does not do, and `Unavailable` only where it does nothing else either."""
    try:
        yield
    except (Invalid, Forbidden, Conflict, Unavailable) as error:
        await objects.reach(zone_prefix("default", "any"))
        raise Declined(error.message) from error
