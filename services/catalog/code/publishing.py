"""Publishing: the draft of a pipeline becomes the version that schedules and triggers run."""

from collections.abc import Collection, Mapping, Sequence

import asyncpg

from contracts.landing import ListZones
from contracts.messages import derived_id, utc_now
from contracts.names import Qualified
from contracts.pipelines import (
    PipelinePublished,
    Published,
    PublishedFiles,
    PublishPipeline,
    ValidatePipeline,
    Validation,
)
from contracts.runs import PinnedFile
from services.catalog.code import domain, drafts
from services.catalog.code.pins import read_draft
from services.catalog.code.store import pipelines, quality, versions
from services.catalog.code.store.pipelines import KeptPipeline
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.errors import NotFound, Unavailable, Unprocessable
from shared.object_store import ObjectStore
from shared.outbox import emit


async def publish(db: asyncpg.Pool, objects: ObjectStore, bus: Bus, query: PublishPipeline) -> Published:
    """Check what lies in a pipeline's folder and pin it, file by file, as the next version."""
    name = Qualified.parse(query.pipeline)
    pipeline = await drafts.living(db, name)
    draft = await read_draft(objects, name.folder)
    pins = draft.pins
    validation = await bus.ask(
        ValidatePipeline(
            pipeline=query.pipeline,
            files=[PinnedFile(path=path, version_id=version) for path, version in pins.items()],
        )
    )
    named = domain.references(validation, domain.main_file(pins))
    zones = await _zones(bus, {one.name for one in named if one.type == "landing_zone"})
    async with transaction(db) as connection:
        await versions.take_turn(connection)
        locked = await pipelines.lock(connection, name)
        if locked is None or locked.shown.id != pipeline.shown.id:
            raise NotFound(f"pipeline {query.pipeline!r} was deleted meanwhile")
        found = domain.judge_publication(
            validation,
            pipeline=name,
            draft=draft,
            published_reads=await versions.published_reads(connection),
            known=await pipelines.living_names(connection),
            known_zones=zones,
        )
        if not found.valid:
            raise _refusal(query.pipeline, found)
        return await _publish(connection, locked, pipeline.revision, pins, validation, found, query.message)


async def _zones(bus: Bus, named: Collection[str]) -> set[str]:
    """The landing zones of the namespaces of those that are named; while ingest is away nothing is missed."""
    found: set[str] = set()
    for namespace in {name.partition("/")[0] for name in named}:
        cursor: str | None = None
        try:
            while True:
                page = await bus.ask(ListZones(namespace=namespace, limit=200, cursor=cursor), timeout=5)
                found |= {f"{zone.namespace}/{zone.name}" for zone in page.zones}
                cursor = page.next_cursor
                if cursor is None:
                    break
        except NotFound:
            continue
        except Unavailable:
            return set(named)
    return found


async def _publish(
    db: Connection,
    pipeline: KeptPipeline,
    seen_revision: int,
    pins: Mapping[str, str],
    validation: Validation,
    found: PublishedFiles,
    message: str | None,
) -> Published:
    """Make the pinned files the next version of a locked pipeline, and say so."""
    now = utc_now()
    pipeline_id = pipeline.shown.id
    number = await versions.add(db, pipeline_id, pins=pins, validation=validation, message=message, now=now)
    await versions.publish(
        db,
        pipeline,
        number=number,
        pins=pins,
        description=validation.description,
        seen_revision=seen_revision,
        draft_dirty=False,
        now=now,
    )
    await versions.forget_old(db, pipeline_id, keep=pipeline.shown.max_versions)
    await quality.forget_others(db, pipeline_id, [test.name for test in validation.tests])
    await quality.keep(db, pipeline_id, pipeline.shown.s3_path, validation.tests)
    await emit(
        db,
        PipelinePublished(
            event_id=derived_id("pipeline.published", pipeline_id, number),
            occurred_at=now,
            pipeline=str(pipeline.name),
            pipeline_id=pipeline_id,
            version=number,
            message=message,
            reads_tables=validation.reads_tables,
            reads_zones=validation.reads_zones,
            archives_files=validation.archives_files,
        ),
    )
    return Published(version=number, message=message, versions=dict(pins), validation=found)


def _refusal(pipeline: str, found: PublishedFiles) -> Unprocessable:
    problems = [
        f"{file.path}:{problem.line}: {problem.message}" if problem.line else f"{file.path}: {problem.message}"
        for file in found.files
        for problem in file.errors
    ]
    return Unprocessable(
        _told(pipeline, problems),
        details={"validation": found.model_dump(mode="json")},
    )


def _told(pipeline: str, problems: Sequence[str]) -> str:
    match problems:
        case []:
            return f"{pipeline} is not valid"
        case [problem]:
            return f"{pipeline} has an error: {problem}"
        case _:
            return f"{pipeline} has {len(problems)} errors; the first: {problems[0]}"
