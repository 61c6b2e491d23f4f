"""The sweep: each zone's prefix is listed now and then, and what no notification told of is found."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import asyncpg

from services.ingest.arrivals import reconcile, record
from services.ingest.domain import Place, Seen
from services.ingest.keys import Told, place_of, seen, zone_prefix
from services.ingest.store import files, zones
from services.ingest.store.zones import DueZone
from shared.object_store import ObjectStore

_CHUNK: Final = 500


async def sweep_zones(db: asyncpg.Pool, objects: ObjectStore, bucket: str, before: datetime) -> None:
    """Sweep every zone whose last sweep was before then; each is swept by one replica."""
    while (zone := await zones.claim_due(db, before)) is not None:
        await _sweep(db, objects, bucket, zone)


async def _sweep(db: asyncpg.Pool, objects: ObjectStore, bucket: str, zone: DueZone) -> None:
    on_record = await files.current_since(db, zone.id, zone.since)
    async for chunk in _chunks(_listed(objects, bucket, zone)):
        await _record_unknown(db, objects, bucket, chunk)
        for version in chunk:
            on_record.pop(version.file_id, None)
    for filename in on_record.values():
        await reconcile(db, objects, bucket, Place(zone.namespace, zone.name, filename))


async def _record_unknown(db: asyncpg.Pool, objects: ObjectStore, bucket: str, chunk: list[Seen]) -> None:
    known = await files.known_ids(db, [version.file_id for version in chunk])
    news = [Told(version.place, version) for version in chunk if not known.get(version.file_id, False)]
    await record(db, objects, bucket, news)


async def _listed(objects: ObjectStore, bucket: str, zone: DueZone) -> AsyncIterator[Seen]:
    """The current versions of the files below a zone's prefix."""
    async for version in objects.versions(zone_prefix(zone.namespace, zone.name)):
        place = place_of(version.key)
        if version.is_latest and not version.is_deletion and place is not None:
            yield seen(
                bucket,
                place,
                version_id=version.version_id,
                etag=version.etag,
                size_bytes=version.size,
                at=version.modified_at,
            )


async def _chunks(versions: AsyncIterator[Seen]) -> AsyncIterator[list[Seen]]:
    chunk: list[Seen] = []
    async for version in versions:
        chunk.append(version)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
