"""The pipelines that runs are of, as the protocol sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from services.catalog.runs.domain import PipelineState
from services.catalog.runs.store import Executor
from shared.database import Connection


@dataclass(frozen=True)
class LockedPipeline:
    """A pipeline whose row is locked until the transaction ends."""

    id: UUID
    version: int | None
    pins: Mapping[str, str]
    """Path → S3 version id of what is published; empty if nothing is."""


async def lock_pipeline(db: Connection, name: str) -> LockedPipeline | None:
    """The living pipeline of this name, locked; None if there is none."""
    namespace, layer, short = name.split(".")
    row = await db.fetchrow(
        """
        select id, version, published_versions
        from pipelines
        where namespace = $1 and layer = $2 and name = $3 and deleted_at is null
        for update
        """,
        namespace,
        layer,
        short,
    )
    return _locked(row) if row else None


async def is_published(db: Executor, name: str) -> bool:
    """Whether a pipeline of this name lives and has a published version."""
    namespace, layer, short = name.split(".")
    return (
        await db.fetchval(
            """
            select version
            from pipelines
            where namespace = $1 and layer = $2 and name = $3 and deleted_at is null and published_at is not null
            """,
            namespace,
            layer,
            short,
        )
        is not None
    )


async def lock_pipeline_by_id(db: Connection, pipeline_id: UUID) -> LockedPipeline:
    """The pipeline of this id, deleted or not, locked."""
    row = await db.fetchrow(
        "select id, version, published_versions from pipelines where id = $1 for update", pipeline_id
    )
    assert row is not None, "runs refer to their pipeline"
    return _locked(row)


async def lock_pipeline_of(db: Connection, run_id: UUID) -> LockedPipeline | None:
    """The pipeline of a run, deleted or not, locked; None if there is no such run."""
    row = await db.fetchrow(
        """
        select pipelines.id, pipelines.version, pipelines.published_versions
        from runs
        join pipelines on pipelines.id = runs.pipeline_id
        where runs.id = $1
        for update of pipelines
        """,
        run_id,
    )
    return _locked(row) if row else None


def _locked(row: asyncpg.Record) -> LockedPipeline:
    return LockedPipeline(row["id"], row["version"], row["published_versions"] or {})


async def pipeline_state(db: Connection, pipeline: LockedPipeline, meant: UUID | None) -> PipelineState:
    """What the decision about a request for a locked pipeline depends on."""
    has_open_run = await db.fetchval(
        "select exists (select from runs where pipeline_id = $1 and finished_at is null)", pipeline.id
    )
    return PipelineState(
        is_meant=meant in (None, pipeline.id), is_published=bool(pipeline.pins), has_open_run=has_open_run
    )


async def version_pins(db: Connection, pipeline_id: UUID, version: int) -> Mapping[str, str] | None:
    """The pins of a published version; None if it is not kept (any more)."""
    pins: Mapping[str, str] | None = await db.fetchval(
        "select published_versions from pipeline_versions where pipeline_id = $1 and version_number = $2",
        pipeline_id,
        version,
    )
    return pins
