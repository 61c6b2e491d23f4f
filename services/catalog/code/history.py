"""Older versions of a pipeline: gone back to, and compared."""

import asyncio
from collections.abc import Mapping
from typing import Final, Literal

import asyncpg

from contracts.messages import derived_id, utc_now
from contracts.names import Qualified
from contracts.pipelines import (
    CompareVersion,
    DraftPins,
    FileDiff,
    PipelinePublished,
    RollBackPipeline,
    RolledBack,
    VersionDiff,
)
from contracts.runs import PinnedFile
from services.catalog.code import domain, drafts
from services.catalog.code.pins import read_draft
from services.catalog.code.store import pipelines, versions
from services.catalog.code.store.pipelines import KeptPipeline
from shared.database import Connection, transaction
from shared.errors import Conflict, NotFound
from shared.object_store import ObjectStore
from shared.outbox import emit
from shared.pages import cursor_after, fitting

_LONGEST_DIFF: Final = 100_000
_READ_AT_ONCE: Final = 10


async def roll_back(db: asyncpg.Pool, objects: ObjectStore, query: RollBackPipeline) -> RolledBack:
    """Make what an older version was the next version; the draft stays as it is, and is compared with it."""
    name = Qualified.parse(query.pipeline)
    pipeline = await drafts.living(db, name)
    draft = await read_draft(objects, name.folder)
    async with transaction(db) as connection:
        await versions.take_turn(connection)
        locked = await pipelines.lock(connection, name)
        if locked is None or locked.shown.id != pipeline.shown.id:
            raise NotFound(f"pipeline {query.pipeline!r} was deleted meanwhile")
        await _refuse_cycles(connection, locked, query.version)
        message = query.message or f"Rollback to version {query.version}"
        now = utc_now()
        added = await versions.add_again(connection, locked.shown.id, query.version, message=message, now=now)
        await versions.publish(
            connection,
            locked,
            number=added.number,
            pins=added.pins,
            description=None,
            seen_revision=pipeline.revision,
            draft_dirty=draft.differs_from(added.pins),
            now=now,
        )
        await versions.forget_old(connection, locked.shown.id, keep=locked.shown.max_versions)
        await emit(
            connection,
            PipelinePublished(
                event_id=derived_id("pipeline.published", locked.shown.id, added.number),
                occurred_at=now,
                pipeline=query.pipeline,
                pipeline_id=locked.shown.id,
                version=added.number,
                message=message,
                reads_tables=added.reads_tables,
                reads_zones=added.reads_zones,
                archives_files=added.archives_files,
            ),
        )
    return RolledBack(from_version=query.version, new_version=added.number, message=message)


async def _refuse_cycles(db: Connection, pipeline: KeptPipeline, number: int) -> None:
    """Raise `Conflict` if a version reads what reads this pipeline by now, `NotFound` if it is not kept."""
    reads = await versions.reads(db, pipeline.shown.id, number)
    if reads is None:
        raise _unknown(pipeline, number)
    published = await versions.published_reads(db)
    for table in reads:
        if cycle := domain.way_back(table, str(pipeline.name), published):
            chain = " reads ".join([str(pipeline.name), *cycle])
            raise Conflict(f"version {number} would close a cycle of published pipelines: {chain}")


async def compare(db: asyncpg.Pool, objects: ObjectStore, query: CompareVersion) -> VersionDiff:
    """Say what differs from a version to another one, or to the draft."""
    pipeline = await drafts.living(db, Qualified.parse(query.pipeline))
    before = await _pins(db, objects, pipeline, query.version)
    after = await _pins(db, objects, pipeline, query.against)
    differing = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    texts = [await _texts(objects, pipeline, pins, differing) for pins in (before, after)]
    found = domain.diffs(*texts, from_name=_label(query.version), to_name=_label(query.against), longest=_LONGEST_DIFF)
    page: list[FileDiff] = fitting(found[query.start : query.start + query.limit])
    return VersionDiff(
        version=query.version,
        against=query.against,
        files=page,
        total=len(found),
        next_cursor=cursor_after(query, page, len(found)),
    )


async def pin_draft(db: asyncpg.Pool, objects: ObjectStore, pipeline: Qualified) -> DraftPins:
    """The files of a draft as they are now."""
    found = await drafts.living(db, pipeline)
    pins = (await read_draft(objects, found.shown.s3_path)).pins
    files = [PinnedFile(path=path, version_id=version) for path, version in pins.items()]
    return DraftPins(pipeline_id=found.shown.id, files=files)


async def _pins(
    db: asyncpg.Pool, objects: ObjectStore, pipeline: KeptPipeline, version: int | Literal["draft"]
) -> Mapping[str, str]:
    if version == "draft":
        return (await read_draft(objects, pipeline.shown.s3_path)).pins
    found = await versions.find(db, pipeline.shown.id, version)
    if found is None:
        raise _unknown(pipeline, version)
    return found.published_versions


async def _texts(
    objects: ObjectStore, pipeline: KeptPipeline, pins: Mapping[str, str], wanted: list[str]
) -> dict[str, str]:
    turns = asyncio.Semaphore(_READ_AT_ONCE)

    async def read(path: str) -> str:
        async with turns:
            return (await objects.get(pipeline.shown.s3_path + path, pins[path])).decode(errors="replace")

    paths = [path for path in wanted if path in pins]
    return dict(zip(paths, await asyncio.gather(*map(read, paths)), strict=True))


def _label(version: int | Literal["draft"]) -> str:
    return "draft" if version == "draft" else f"version {version}"


def _unknown(pipeline: KeptPipeline, number: int) -> NotFound:
    return NotFound(f"{pipeline.name} has no version {number}, or it is not kept any more")
