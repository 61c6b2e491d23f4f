"""Keys and names: which keys are files of a zone, which names can be read, and what a notification says of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote_plus
from uuid import UUID

from pydantic import BaseModel, Field

from contracts.landing import BucketChanged
from contracts.messages import derived_id
from contracts.names import NAME_PATTERN
from services.ingest.domain import Place, Seen

SAMPLES: Final = "_samples/"
PROCESSED: Final = "_processed/"
MAX_KEY_BYTES: Final = 1024
"""What S3 allows."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def zone_prefix(namespace: str, zone: str) -> str:
    """Where the files of a zone lie, with a slash at its end."""
    return f"{namespace}/landing/{zone}/"


def processed_key(place: Place, run_id: UUID) -> str:
    """Where a file is archived that this run read."""
    return f"{zone_prefix(place.namespace, place.zone)}{PROCESSED}{run_id}/{place.filename}"


def place_of(key: str) -> Place | None:
    """Where a key lies, or None if it is no file of a zone: samples, archived files, folders, everything else."""
    parts = key.split("/", 3)
    if len(parts) < 4 or parts[1] != "landing":
        return None
    namespace, _, zone, filename = parts
    is_no_file = not filename or filename.endswith("/") or filename.startswith((SAMPLES, PROCESSED))
    # PostgreSQL cannot hold a NUL, and XML cannot list one: such a key is unreachable whatever we do.
    if is_no_file or "\x00" in key:
        return None
    if not (re.fullmatch(NAME_PATTERN, namespace) and re.fullmatch(NAME_PATTERN, zone)):
        return None
    return Place(namespace, zone, filename)


def name_problem(filename: str) -> str | None:
    """What keeps a name from being read, if anything (`triggers.md`, Landing zones)."""
    if _CONTROL.search(filename):
        return f"the name {filename!r} has a control character"
    if ".." in filename:
        return f"the name {filename!r} has '..'"
    if "?" in filename:
        return f"the name {filename!r} has '?'"
    return None


def upload_problem(place: Place) -> str | None:
    """What keeps a file from being uploaded under this name, if anything."""
    name = place.filename
    if (problem := name_problem(name)) is not None:
        return problem
    if not name or name.endswith("/"):
        return f"{name!r} is no name of a file"
    # Not every store takes keys with empty parts.
    if name.startswith("/") or "//" in name:
        return f"the name {name!r} has an empty part"
    if name.startswith((SAMPLES, PROCESSED)):
        return f"the name {name!r} begins with {name.partition('/')[0]}/, which is kept for the platform"
    if len(place.key.encode()) > MAX_KEY_BYTES:
        return f"the key {place.key!r} is longer than {MAX_KEY_BYTES} bytes"
    return None


def seen(
    bucket: str,
    place: Place,
    *,
    version_id: str,
    etag: str,
    size_bytes: int,
    at: datetime,
    content_type: str | None = None,
    uploaded_by: str | None = None,
) -> Seen:
    """A version at a place, under the one id and with the one time that it has however it becomes known.

    A time is of one second: a store tells it so when it is asked for one object, and with more when it tells by itself.
    """
    return Seen(
        file_id=file_id(bucket, place.key, version_id),
        place=place,
        version_id=version_id,
        etag=etag,
        size_bytes=size_bytes,
        at=at.replace(microsecond=0),
        problem=name_problem(place.filename),
        content_type=content_type,
        uploaded_by=uploaded_by,
    )


def file_id(bucket: str, key: str, version_id: str) -> UUID:
    """The id of a version of a file."""
    return derived_id(bucket, key, version_id)


# Notifications


class _Named(BaseModel, frozen=True):
    name: str


class _Object(BaseModel, frozen=True):
    key: str
    """Form-encoded."""
    version_id: str = Field(default="", alias="versionId")
    etag: str = Field(default="", alias="eTag")
    size: int = 0
    """Not sent when it is 0."""
    content_type: str | None = Field(default=None, alias="contentType")


class _Where(BaseModel, frozen=True):
    bucket: _Named
    object: _Object


class _Record(BaseModel, frozen=True):
    event_name: str = Field(alias="eventName")
    event_time: datetime = Field(alias="eventTime")
    s3: _Where


@dataclass(frozen=True)
class Told:
    """What one record of a notification says about a name: that a version was put, or only that something changed."""

    place: Place
    seen: Seen | None


def told(event: BucketChanged, bucket: str) -> Iterator[Told]:
    """What a notification says about files of zones in our bucket; a pydantic `ValidationError` for a malformed one."""
    for fields in event.records:
        record = _Record.model_validate(fields)
        what = record.s3.object
        place = place_of(unquote_plus(what.key))
        if place is None or record.s3.bucket.name != bucket:
            continue
        name = record.event_name.removeprefix("s3:")
        if name.startswith("ObjectRemoved:"):
            yield Told(place, None)
        elif name.startswith("ObjectCreated:"):
            yield Told(place, _seen(what, place, bucket, record.event_time))


def _seen(what: _Object, place: Place, bucket: str, at: datetime) -> Seen | None:
    if not (what.version_id and what.etag):
        return None
    return seen(
        bucket,
        place,
        version_id=what.version_id,
        etag=what.etag.strip('"'),
        size_bytes=what.size,
        at=at,
        content_type=what.content_type,
    )
