"""Files in a zone as users see, remove, reject and retry them."""

from uuid import UUID

import asyncpg

from contracts.landing import FileState, LandingFile, LandingFiles, ListFiles, RejectFile, RemoveFile, RetryFile
from services.ingest.keys import name_problem
from services.ingest.store import archive, files
from services.ingest.zones import find
from shared.database import Connection, transaction
from shared.errors import Conflict, NotFound
from shared.pages import cursor_after, fitting


async def page(db: asyncpg.Pool, query: ListFiles) -> LandingFiles:
    """A page of the files of a zone."""
    zone = await find(db, query.namespace, query.zone)
    total = await files.count(db, zone.id, query.state)
    shown = fitting(await files.page(db, zone.id, query.state, limit=query.limit, start=query.start))
    return LandingFiles(files=shown, total=total, next_cursor=cursor_after(query, shown, total))


async def show(db: asyncpg.Pool, namespace: str, zone: str, file_id: UUID) -> LandingFile:
    """One file, or NotFound."""
    record = await find(db, namespace, zone)
    return await _show(db, record.id, file_id)


async def remove(db: asyncpg.Pool, query: RemoveFile) -> None:
    """Take a file out of its zone, and have it deleted from the store."""
    async with transaction(db) as connection:
        zone = await find(connection, query.namespace, query.zone)
        await _show(connection, zone.id, query.file_id)
        if await files.withdraw(connection, zone.id, query.file_id):
            await archive.ask_to_delete(connection, [query.file_id])


async def reject(db: asyncpg.Pool, query: RejectFile) -> LandingFile:
    """Keep a file that the zone holds out of what it gives out."""
    reason = query.reason or "rejected by hand"
    async with transaction(db) as connection:
        zone = await find(connection, query.namespace, query.zone)
        file = await _show(connection, zone.id, query.file_id)
        if not await files.reject(connection, zone.id, file.id, reason):
            raise _left(file)
        return await _show(connection, zone.id, file.id)


async def retry(db: asyncpg.Pool, query: RetryFile) -> LandingFile:
    """Look at a rejected file again; one whose name cannot be read stays rejected."""
    async with transaction(db) as connection:
        zone = await find(connection, query.namespace, query.zone)
        file = await _show(connection, zone.id, query.file_id)
        if file.state is not FileState.REJECTED or name_problem(file.filename) is not None:
            return file
        if not await files.accept(connection, zone.id, file.id):
            raise _left(file)
        return await _show(connection, zone.id, file.id)


async def _show(db: asyncpg.Pool | Connection, zone_id: UUID, file_id: UUID) -> LandingFile:
    file = await files.show(db, zone_id, file_id)
    if file is None:
        raise NotFound(f"no file {file_id} in this zone")
    return file


def _left(file: LandingFile) -> Conflict:
    return Conflict(f"the zone does not hold this version of {file.filename!r} any more: it is {file.state}")
