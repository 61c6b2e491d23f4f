"""Runs as they are shown."""

from typing import Any
from uuid import UUID

import asyncpg

from contracts.runs import ListRuns
from services.catalog.runs.store import Executor

_SHOWN = """
id, pipeline_id, pipeline, version, status, trigger, attempt, branch, started_at, finished_at, duration_ms,
rows_written, error, error_kind, phase_profiles, inputs, outputs, changes, parameters, dry_run, logs_s3_path,
created_at
"""

_MATCHES = """
($1::text is null or split_part(pipeline, '.', 1) = $1)
and ($2::text is null or split_part(pipeline, '.', 2) = $2)
and ($3::text is null or split_part(pipeline, '.', 3) = $3)
and ($4::text is null or status = $4)
and ($5::text is null or starts_with(trigger, $5))
and ($6::timestamptz is null or started_at > $6)
and ($7::timestamptz is null or started_at < $7)
"""


def _criteria(query: ListRuns) -> tuple[Any, ...]:
    return (
        query.namespace,
        query.layer,
        query.pipeline,
        query.status,
        query.trigger,
        query.started_after,
        query.started_before,
    )


async def count(db: Executor, query: ListRuns) -> int:
    """How many runs match."""
    total: int = await db.fetchval(f"select count(*) from runs where {_MATCHES}", *_criteria(query))
    return total


async def page(db: Executor, query: ListRuns) -> list[asyncpg.Record]:
    """The runs of one page."""
    direction = "desc" if query.sort.startswith("-") else "asc"
    rows: list[asyncpg.Record] = await db.fetch(
        f"""
        select {_SHOWN}
        from runs
        where {_MATCHES}
        order by {query.sort.lstrip("-")} {direction} nulls last, id
        limit $8 offset $9
        """,
        *_criteria(query),
        query.limit,
        query.start,
    )
    return rows


async def show(db: Executor, run_id: UUID) -> asyncpg.Record | None:
    """One run with all that is shown of it."""
    return await db.fetchrow(f"select {_SHOWN} from runs where id = $1", run_id)


async def results_of_run(db: Executor, run_id: UUID) -> list[asyncpg.Record]:
    """How the tests judged a run."""
    rows: list[asyncpg.Record] = await db.fetch(
        """
        select test_name as name, status, severity, value::bigint as value, duration_ms, sample_rows, message,
          compiled_sql
        from quality_results
        where run_id = $1
        order by test_name
        """,
        run_id,
    )
    return rows


async def logs_of_run(db: Executor, run_id: UUID) -> asyncpg.Record | None:
    """Where the log of a run is, and its last lines."""
    return await db.fetchrow("select status, logs_s3_path, logs from runs where id = $1", run_id)
