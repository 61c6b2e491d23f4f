"""The SQL of lineage: what published versions read, and what their queries say."""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from contracts.lineage import LatestRun, PipelineReads, QualityCount

_OF_PIPELINE = """
runs.pipeline = pipelines.namespace || '.' || pipelines.layer || '.' || pipelines.name
and runs.pipeline_id = pipelines.id
"""
_IS_WANTED = "deleted_at is null and ($1::text is null or namespace = $1)"


@dataclass(frozen=True)
class PublishedQuery:
    """The query of a published version."""

    version: int
    sql: str | None
    """None for Python, and where it was too long to be kept."""
    reads_tables: list[str]


async def published_query(db: asyncpg.Pool, pipeline_id: UUID) -> PublishedQuery | None:
    """The query of a pipeline's published version; None while there is none."""
    row = await db.fetchrow(
        """
        select version_number as version, query_sql as sql, reads_tables
        from pipelines
        join pipeline_versions on pipeline_id = pipelines.id and version_number = pipelines.version
        where pipelines.id = $1
        """,
        pipeline_id,
    )
    return PublishedQuery(**row) if row else None


async def count(db: asyncpg.Pool, namespace: str | None) -> int:
    """How many pipelines there are."""
    total: int = await db.fetchval(f"select count(*) from pipelines where {_IS_WANTED}", namespace)
    return total


async def page(db: asyncpg.Pool, namespace: str | None, *, limit: int, start: int) -> list[PipelineReads]:
    """Pipelines with what they read, how their newest run is doing, and how tests judged the newest that ended."""
    rows = await db.fetch(
        f"""
        select namespace, layer, name, version is not null as is_published, reads_tables, reads_zones,
          latest.id as run_id, latest.status, latest.started_at, latest.finished_at, judged.*
        from (
          select * from pipelines where {_IS_WANTED} order by namespace, layer, name limit $2 offset $3
        ) pipelines
        left join pipeline_versions versions
          on versions.pipeline_id = pipelines.id and version_number = pipelines.version
        left join lateral (
          select id, status, started_at, finished_at
          from runs
          where {_OF_PIPELINE}
          order by created_at desc
          limit 1
        ) latest on true
        left join lateral (
          select count(*) as total,
            count(*) filter (where status = 'passed') as passed,
            count(*) filter (where status in ('failed', 'error')) as failed,
            count(*) filter (where status = 'warned') as warned
          from quality_results
          where run_id = (
            select id
            from runs
            where {_OF_PIPELINE} and status in ('success', 'failed')
            order by created_at desc
            limit 1
          )
        ) judged on true
        order by namespace, layer, name
        """,
        namespace,
        limit,
        start,
    )
    return [_shown(row) for row in rows]


def _shown(row: asyncpg.Record) -> PipelineReads:
    latest = None
    if row["run_id"] is not None:
        latest = LatestRun(
            id=row["run_id"], status=row["status"], started_at=row["started_at"], finished_at=row["finished_at"]
        )
    return PipelineReads(
        namespace=row["namespace"],
        layer=row["layer"],
        name=row["name"],
        is_published=row["is_published"],
        reads_tables=row["reads_tables"] or [],
        reads_zones=list(dict.fromkeys(f"{zone['namespace']}/{zone['zone']}" for zone in row["reads_zones"] or [])),
        latest_run=latest,
        quality=QualityCount(total=row["total"], passed=row["passed"], failed=row["failed"], warned=row["warned"]),
    )
