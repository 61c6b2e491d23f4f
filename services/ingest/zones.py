"""Landing zones as users make, see, change and remove them."""

from uuid import UUID

import asyncpg

from contracts.landing import ChangeZone, CreateZone, ListZones, Zone, Zones
from contracts.pipelines import NamespaceRemoved
from services.ingest.store import archive, files, zones
from services.ingest.store.zones import ZoneRecord
from shared.database import Connection, transaction
from shared.errors import AlreadyExists, NotFound
from shared.pages import cursor_after, fitting


async def page(db: asyncpg.Pool, query: ListZones) -> Zones:
    """A page of zones."""
    total = await zones.count(db, query.namespace)
    shown = fitting(await zones.page(db, query.namespace, limit=query.limit, start=query.start))
    return Zones(zones=shown, total=total, next_cursor=cursor_after(query, shown, total))


async def create(db: asyncpg.Pool, query: CreateZone, namespace_id: UUID | None) -> Zone:
    """A new zone; AlreadyExists if its name is taken, NotFound if its namespace was deleted meanwhile."""
    async with transaction(db) as connection:
        if namespace_id is not None:
            await zones.take_turn(connection, namespace_id)
            if await zones.is_namespace_removed(connection, namespace_id):
                raise NotFound(f"namespace {query.namespace!r} was deleted")
        if await zones.create(connection, query, namespace_id) is None:
            raise AlreadyExists(f"a landing zone {query.namespace}/{query.name} exists")
    return await show(db, query.namespace, query.name)


async def show(db: asyncpg.Pool, namespace: str, name: str) -> Zone:
    """One zone, or NotFound."""
    zone = await zones.show(db, namespace, name)
    if zone is None:
        raise _missing(namespace, name)
    return zone


async def find(db: asyncpg.Pool | Connection, namespace: str, name: str) -> ZoneRecord:
    """What the work on a zone's files needs to know about it, or NotFound."""
    zone = await zones.find(db, namespace, name)
    if zone is None:
        raise _missing(namespace, name)
    return zone


async def change(db: asyncpg.Pool, query: ChangeZone) -> Zone:
    """The zone as it is now, or NotFound."""
    if not await zones.change(db, query):
        raise _missing(query.namespace, query.name)
    return await show(db, query.namespace, query.name)


async def remove(db: asyncpg.Pool, namespace: str, name: str) -> None:
    """Remove a zone with its files, or NotFound."""
    async with transaction(db) as connection:
        zone_id = await zones.remove(connection, namespace, name)
        if zone_id is None:
            raise _missing(namespace, name)
        await _remove_files(connection, zone_id)


async def remove_all(db: asyncpg.Pool, event: NamespaceRemoved) -> None:
    """Remove all zones of a namespace, those too that are being made; none of another namespace of its name."""
    async with transaction(db) as connection:
        if event.namespace_id is not None:
            await zones.take_turn(connection, event.namespace_id)
            await zones.note_removed_namespace(connection, event.namespace_id)
        for name in await zones.names_in(connection, event.namespace, event.namespace_id, event.occurred_at):
            zone_id = await zones.remove(connection, event.namespace, name)
            if zone_id is not None:
                await _remove_files(connection, zone_id)


async def _remove_files(connection: Connection, zone_id: UUID) -> None:
    await archive.ask_to_delete(connection, await files.withdraw_all(connection, zone_id))


def _missing(namespace: str, name: str) -> NotFound:
    return NotFound(f"no landing zone {namespace}/{name}")
