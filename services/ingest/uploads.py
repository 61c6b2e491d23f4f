"""Addresses at which files are put and read, and the record of what was put there through the API."""

from datetime import timedelta
from typing import Final

import asyncpg

from contracts.landing import (
    AddressFile,
    AddressSample,
    AddressUpload,
    DownloadAddress,
    LandingFile,
    RecordUpload,
    UploadAddress,
)
from contracts.messages import utc_now
from services.ingest import arrivals
from services.ingest.domain import Place, Seen
from services.ingest.files import show
from services.ingest.keys import SAMPLES, Told, seen, upload_problem
from services.ingest.store import files
from services.ingest.zones import find
from shared.errors import Conflict, Invalid, NotFound
from shared.object_store import GIBIBYTE, ObjectStore

_LIFETIME: Final = timedelta(hours=1)
MAX_UPLOAD_BYTES: Final = 5 * GIBIBYTE
"""What S3 takes in one PUT."""


async def address(db: asyncpg.Pool, objects: ObjectStore, query: AddressUpload) -> UploadAddress:
    """Where a file can be put into a zone."""
    await find(db, query.namespace, query.zone)
    place = _place(query.namespace, query.zone, query.filename)
    if query.size_bytes is not None and query.size_bytes > MAX_UPLOAD_BYTES:
        raise Invalid(
            f"{query.filename!r} has {query.size_bytes} bytes, more than one upload takes ({MAX_UPLOAD_BYTES}): "
            "put it into the bucket with an S3 client, in parts"
        )
    return await _address(objects, place.filename, place.key)


async def address_sample(db: asyncpg.Pool, objects: ObjectStore, query: AddressSample) -> UploadAddress:
    """Where a sample can be put."""
    await find(db, query.namespace, query.zone)
    place = _place(query.namespace, query.zone, query.filename)
    sample = Place(place.namespace, place.zone, SAMPLES + place.filename)
    return await _address(objects, place.filename, sample.key)


async def address_content(db: asyncpg.Pool, objects: ObjectStore, query: AddressFile) -> DownloadAddress:
    """Where the content of a file can be read, at the version that it is."""
    file = await show(db, query.namespace, query.zone, query.file_id)
    version_id = await files.stored_version(db, file.zone_id, file.id)
    if version_id is None:
        raise NotFound(f"the file {file.filename!r} of that id was deleted")
    expires_at = utc_now() + _LIFETIME
    return DownloadAddress(
        url=await objects.presign_get(file.s3_path, _LIFETIME, version_id=version_id),
        filename=file.filename,
        content_type=file.content_type,
        size_bytes=file.size_bytes,
        expires_at=expires_at,
    )


async def record(db: asyncpg.Pool, objects: ObjectStore, bucket: str, query: RecordUpload) -> LandingFile:
    """The file that was put there, on record; the store's own notification may have come first."""
    zone = await find(db, query.namespace, query.zone)
    place = _place(query.namespace, query.zone, query.filename)
    uploaded = await _uploaded(objects, bucket, place, query)
    await arrivals.record(db, objects, bucket, [Told(place, uploaded)])
    await files.fill_in(db, uploaded.file_id, content_type=query.content_type, uploaded_by=query.uploaded_by)
    file = await files.show(db, zone.id, uploaded.file_id)
    if file is None:
        raise Conflict(f"the landing zone {query.namespace}/{query.zone} was removed during the upload")
    return file


async def _uploaded(objects: ObjectStore, bucket: str, place: Place, query: RecordUpload) -> Seen:
    if query.version_id is None or query.etag is None or query.size_bytes is None:
        found = await arrivals.look_up(objects, bucket, place)
        if found is None:
            raise NotFound(f"nothing was put at {place.key!r}")
        return found
    return seen(
        bucket,
        place,
        version_id=query.version_id,
        etag=query.etag.strip('"'),
        size_bytes=query.size_bytes,
        at=utc_now(),
        content_type=query.content_type,
        uploaded_by=query.uploaded_by,
    )


def _place(namespace: str, zone: str, filename: str) -> Place:
    place = Place(namespace, zone, filename)
    if (problem := upload_problem(place)) is not None:
        raise Invalid(problem)
    return place


async def _address(objects: ObjectStore, filename: str, key: str) -> UploadAddress:
    expires_at = utc_now() + _LIFETIME
    return UploadAddress(
        url=await objects.presign_put(key, _LIFETIME), filename=filename, key=key, expires_at=expires_at
    )
