"""Samples of a zone: files below `_samples/`, for previews only, of which nothing is on record."""

from datetime import datetime
from pathlib import PurePosixPath

from contracts.landing import ListSamples, Sample, Samples
from services.ingest.keys import SAMPLES, zone_prefix
from shared.errors import NotFound
from shared.object_store import ObjectStore
from shared.pages import cursor_after, fitting


async def page(objects: ObjectStore, query: ListSamples) -> Samples:
    """The samples of a zone by name."""
    prefix = samples_prefix(query.namespace, query.zone)
    samples = [
        _sample(found.key.removeprefix(prefix), found.size, found.modified_at)
        async for found in objects.objects(prefix)
        if not found.key.endswith("/")
    ]
    shown = fitting(samples[query.start : query.start + query.limit])
    return Samples(files=shown, total=len(samples), next_cursor=cursor_after(query, shown, len(samples)))


async def remove(objects: ObjectStore, namespace: str, zone: str, filename: str) -> None:
    """Delete a sample; NotFound if there is none of that name."""
    key = samples_prefix(namespace, zone) + filename
    try:
        await objects.head(key)
    except NotFound as error:
        raise NotFound(f"no sample {filename!r} in {namespace}/{zone}") from error
    await objects.delete(key)


def samples_prefix(namespace: str, zone: str) -> str:
    """Where the samples of a zone lie, with a slash at its end."""
    return zone_prefix(namespace, zone) + SAMPLES


def _sample(path: str, size: int, modified: datetime) -> Sample:
    return Sample(path=path, size=size, modified=modified, type=PurePosixPath(path).suffix.removeprefix("."))
