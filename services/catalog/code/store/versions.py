"""The SQL of published versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.pipelines import PipelineVersion, Validation, ZoneReference
from services.catalog.code.store.pipelines import KeptPipeline
from shared.database import Connection

_SHOWN = "id, pipeline_id, version_number, message, published_versions, created_at"


@dataclass(frozen=True)
class AddedVersion:
    """A version that was made of an older one."""

    number: int
    pins: Mapping[str, str]
    reads_tables: list[str]
    reads_zones: list[ZoneReference]
    archives_files: bool


async def take_turn(db: Connection) -> None:
    """Let nobody else publish until the transaction ends: two versions could close a cycle together."""
    await db.execute("select pg_advisory_xact_lock(hashtextextended('publish', 0))")


async def published_reads(db: Connection) -> dict[str, list[str]]:
    """Pipeline → the tables that its published version reads, of those that read any."""
    rows = await db.fetch(
        """
        select pipelines.namespace || '.' || pipelines.layer || '.' || pipelines.name as pipeline, reads_tables
        from pipelines
        join pipeline_versions on pipeline_id = pipelines.id and version_number = pipelines.version
        where deleted_at is null and cardinality(reads_tables) > 0
        """
    )
    return {row["pipeline"]: row["reads_tables"] for row in rows}


async def add(
    db: Connection,
    pipeline_id: UUID,
    *,
    pins: Mapping[str, str],
    validation: Validation,
    message: str | None,
    now: datetime,
) -> int:
    """Add a version to a locked pipeline, and say its number."""
    number: int = await db.fetchval(
        """
        insert into pipeline_versions
          (pipeline_id, version_number, message, published_versions, reads_tables, reads_zones, archives_files,
           query_sql, created_at)
        select $1, coalesce(max(version_number), 0) + 1, $2, $3, $4, $5, $6, $7, $8
        from pipeline_versions
        where pipeline_id = $1
        returning version_number
        """,
        pipeline_id,
        message,
        dict(pins),
        validation.reads_tables,
        [zone.model_dump(mode="json") for zone in validation.reads_zones],
        validation.archives_files,
        validation.query_sql,
        now,
    )
    return number


async def add_again(
    db: Connection, pipeline_id: UUID, number: int, *, message: str | None, now: datetime
) -> AddedVersion:
    """Add a version to a locked pipeline that is what the version of this number is, which must be kept."""
    row = await db.fetchrow(
        """
        insert into pipeline_versions
          (pipeline_id, version_number, message, published_versions, reads_tables, reads_zones, archives_files,
           query_sql, created_at)
        select $1, (select max(version_number) + 1 from pipeline_versions where pipeline_id = $1), $3,
          published_versions, reads_tables, reads_zones, archives_files, query_sql, $4
        from pipeline_versions
        where pipeline_id = $1 and version_number = $2
        returning version_number as number, published_versions as pins, reads_tables, reads_zones, archives_files
        """,
        pipeline_id,
        number,
        message,
        now,
    )
    assert row is not None, "whoever locked the pipeline has found the version"
    return AddedVersion(**{**dict(row), "reads_zones": [ZoneReference(**zone) for zone in row["reads_zones"]]})


async def reads(db: Connection, pipeline_id: UUID, number: int) -> list[str] | None:
    """The tables that a version reads; None if it is not kept."""
    tables: list[str] | None = await db.fetchval(
        "select reads_tables from pipeline_versions where pipeline_id = $1 and version_number = $2",
        pipeline_id,
        number,
    )
    return tables


async def publish(
    db: Connection,
    pipeline: KeptPipeline,
    *,
    number: int,
    pins: Mapping[str, str],
    description: str | None,
    seen_revision: int,
    draft_dirty: bool,
    now: datetime,
) -> None:
    """Make a version what a locked pipeline runs.

    `draft_dirty` is so as the draft was seen; what was edited since then makes it dirty.
    """
    await db.execute(
        """
        update pipelines
        set version = $2, published_versions = $3, published_at = $4, updated_at = $4,
          description = coalesce($5, description), draft_dirty = $7 or revision <> $6,
          revision = revision + 1
        where id = $1
        """,
        pipeline.shown.id,
        number,
        dict(pins),
        now,
        description,
        seen_revision,
        draft_dirty,
    )


async def forget_old(db: Connection, pipeline_id: UUID, *, keep: int) -> None:
    """Forget all versions of a locked pipeline but the newest ones and the published one."""
    await db.execute(
        """
        delete from pipeline_versions
        where pipeline_id = $1
          and version_number not in (
            select version_number
            from pipeline_versions
            where pipeline_id = $1
            order by version_number desc
            limit $2
          )
          and version_number is distinct from (select version from pipelines where id = $1)
        """,
        pipeline_id,
        keep,
    )


async def count(db: asyncpg.Pool, pipeline_id: UUID) -> int:
    """How many versions of a pipeline are kept."""
    total: int = await db.fetchval("select count(*) from pipeline_versions where pipeline_id = $1", pipeline_id)
    return total


async def page(db: asyncpg.Pool, pipeline_id: UUID, *, limit: int, start: int) -> list[PipelineVersion]:
    """Versions of a pipeline, the newest first."""
    rows = await db.fetch(
        f"""
        select {_SHOWN}
        from pipeline_versions
        where pipeline_id = $1
        order by version_number desc
        limit $2 offset $3
        """,
        pipeline_id,
        limit,
        start,
    )
    return [PipelineVersion.model_validate(dict(row)) for row in rows]


async def find(db: asyncpg.Pool, pipeline_id: UUID, number: int) -> PipelineVersion | None:
    """A version of a pipeline; None if there is none of that number."""
    row = await db.fetchrow(
        f"select {_SHOWN} from pipeline_versions where pipeline_id = $1 and version_number = $2", pipeline_id, number
    )
    return PipelineVersion.model_validate(dict(row)) if row else None
