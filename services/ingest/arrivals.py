"""Versions of files become known: told by the store, by the gateway, or found by a sweep. All meet here."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

import asyncpg

from contracts.landing import FileLanded
from contracts.messages import derived_id
from services.ingest.domain import Arrival, Held, NameChanges, Place, Seen, name_changes
from services.ingest.keys import Told, seen
from services.ingest.store import files, zones
from shared.database import Connection, transaction
from shared.errors import Conflict, NotFound
from shared.object_store import ObjectStore
from shared.outbox import emit

_TRIES = 5
_AT_ONCE = 4
"""Names that are looked up in the store at a time: each takes a connection to the database meanwhile."""


async def record(db: asyncpg.Pool, objects: ObjectStore, bucket: str, news: Iterable[Told]) -> None:
    """Put on record what was told, and say `file.landed` once of each version.

    A name that was not in the zone and is told of once is taken at its word, without asking the store. What is told
    of any other name may be late, and says only that the store is to be asked what lies there now.
    """
    by_place: dict[Place, list[Told]] = {}
    for told in news:
        by_place.setdefault(told.place, []).append(told)
    taken = [told[0].seen for told in by_place.values() if len(told) == 1 and told[0].seen]
    unclear = await _take_at_their_word(db, taken)
    unclear |= {place for place, told in by_place.items() if len(told) > 1 or told[0].seen is None}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def look(place: Place) -> None:
        async with limit:
            await reconcile(db, objects, bucket, place, [told.seen for told in by_place[place] if told.seen])

    looks = (look(place) for place in sorted(unclear, key=lambda place: place.key))
    for failure in await asyncio.gather(*looks, return_exceptions=True):
        if failure is not None:
            raise failure


async def _take_at_their_word(db: asyncpg.Pool, versions: Sequence[Seen]) -> set[Place]:
    """Record these versions as current, and give the places whose names have another current version."""
    if not versions:
        return set()
    async with transaction(db) as connection:
        zone_ids = await zones.ids(connection, [(it.place.namespace, it.place.zone) for it in versions])
        arrivals = [
            (zone_ids[it.place.namespace, it.place.zone], Arrival(it, it.state, is_current=True))
            for it in versions
            if (it.place.namespace, it.place.zone) in zone_ids
        ]
        recorded = await _land(connection, arrivals)
        left = {arrival.seen.file_id: arrival.seen.place for _, arrival in arrivals}
        for file_id in recorded:
            del left[file_id]
        if not left:
            return set()
        known = await files.known_ids(connection, list(left))
    return {place for file_id, place in left.items() if not known.get(file_id, False)}


async def reconcile(
    db: asyncpg.Pool, objects: ObjectStore, bucket: str, place: Place, told: Collection[Seen] = ()
) -> None:
    """Make the record of one name say what the store holds; `told` are versions that it is to know besides.

    The store is asked while the record of the name is locked, so that what it answered last is what is recorded last.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            async with transaction(db) as connection:
                await _reconcile(connection, objects, bucket, place, told)
        except (Conflict, asyncpg.UniqueViolationError) as error:
            # Another replica recorded a first version of the name at the same time; now there is a row to lock.
            if attempt == _TRIES:
                raise Conflict(f"the record of {place.key!r} is busy") from error
        else:
            return


async def _reconcile(
    connection: Connection, objects: ObjectStore, bucket: str, place: Place, told: Collection[Seen]
) -> None:
    zone = await zones.find(connection, place.namespace, place.zone)
    if zone is None:
        return
    await files.known(connection, zone.id, place.filename, [])
    held = await look_up(objects, bucket, place)
    ids = [it.file_id for it in (*told, *((held,) if held else ()))]
    known = await files.known(connection, zone.id, place.filename, ids)
    await _apply(connection, zone.id, name_changes(known, told, held))


async def look_up(objects: ObjectStore, bucket: str, place: Place) -> Held:
    """What the store holds at a place."""
    try:
        found = await objects.head(place.key)
    except NotFound:
        return None
    return seen(
        bucket,
        place,
        version_id=found.version_id or "null",
        etag=found.etag,
        size_bytes=found.size,
        at=found.modified_at,
        content_type=found.content_type,
    )


async def _apply(connection: Connection, zone_id: UUID, changes: NameChanges) -> None:
    if changes.retired is not None:
        await files.retire(connection, *changes.retired)
    if changes.restored is not None and not await files.restore(connection, *changes.restored):
        raise Conflict("another version was recorded as current")
    recorded = await _land(connection, [(zone_id, arrival) for arrival in changes.arrivals])
    if any(arrival.is_current and arrival.seen.file_id not in recorded for arrival in changes.arrivals):
        raise Conflict("another version was recorded as current")


async def _land(connection: Connection, arrivals: Sequence[tuple[UUID, Arrival]]) -> set[UUID]:
    recorded = await files.land(connection, arrivals)
    await emit(
        connection,
        *(
            landed_event(zone_id, arrival.seen)
            for zone_id, arrival in arrivals
            if arrival.is_announced and arrival.seen.file_id in recorded
        ),
    )
    return recorded


def landed_event(zone_id: UUID, it: Seen) -> FileLanded:
    """The one `file.landed` of a version."""
    return FileLanded(
        event_id=derived_id("file.landed", it.file_id),
        namespace=it.place.namespace,
        zone=it.place.zone,
        zone_id=zone_id,
        file_id=it.file_id,
        filename=it.place.filename,
        key=it.place.key,
        size_bytes=it.size_bytes,
        etag=it.etag,
        version_id=it.version_id,
    )
