"""How runs end, and which are wanted no more."""

from datetime import datetime
from uuid import UUID

from contracts.messages import derived_id
from contracts.reports import AttemptReport
from contracts.runs import AttemptFinished
from services.catalog.runs.store import Executor
from shared.database import Connection


async def finish(
    db: Connection, run_id: UUID, end: AttemptFinished, report: AttemptReport | None, now: datetime
) -> bool:
    """Move a run to its terminal state, which its request keeps for good; False if it has one."""
    return (
        await db.fetchval(
            """
            with ended as (
              update runs
              set status = $2, finished_at = $3, decided_by = $4, error = $5, error_kind = $6, branch = $7,
                rows_written = $8, files_read = $9, phase_profiles = $10, inputs = $11, outputs = $12,
                report_key = $13, logs_s3_path = $14, logs = $15, changes = $16,
                duration_ms = (extract(epoch from $3 - started_at) * 1000)::bigint,
                queued_at = coalesce(queued_at, $3)
              where id = $1 and status in ('pending', 'running')
              returning id
            ),
            kept as (
              update run_requests set terminal_status = $2 where run_id in (select id from ended)
            )
            select id from ended
            """,
            run_id,
            end.status,
            now,
            end.attempt,
            end.error,
            end.error_kind,
            end.branch,
            end.rows_written,
            end.files_read,
            [phase.model_dump(mode="json") for phase in end.phases],
            [one.model_dump(mode="json") for one in report.inputs] if report else [],
            [one.model_dump(mode="json") for one in report.outputs] if report else [],
            end.report_key,
            end.logs_key,
            [line.model_dump(mode="json") for line in end.last_log_lines],
            [one.model_dump(mode="json") for one in report.changes] if report else [],
        )
        is not None
    )


async def insert_quality_results(
    db: Connection, run_id: UUID, pipeline_id: UUID, report: AttemptReport, now: datetime
) -> None:
    """Keep how the tests judged a run, once."""
    await db.executemany(
        """
        insert into quality_results
          (id, run_id, pipeline_id, test_name, status, severity, value, duration_ms, sample_rows, message, compiled_sql,
           ran_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (run_id, test_name) do nothing
        """,
        [
            (
                derived_id("quality", run_id, result.name),
                run_id,
                pipeline_id,
                result.name,
                result.status,
                result.severity,
                result.value,
                result.duration_ms,
                result.sample_rows,
                result.message,
                result.compiled_sql,
                now,
            )
            for result in report.quality
        ],
    )


async def request_cancel(db: Connection, run_id: UUID, now: datetime) -> None:
    """Keep that a run is no longer wanted."""
    await db.execute(
        "update runs set cancel_requested_at = coalesce(cancel_requested_at, $2) where id = $1", run_id, now
    )


async def unwanted_runs(db: Executor) -> list[UUID]:
    """Runs that runners are to be told of, until they end."""
    rows = await db.fetch(
        "select id from runs where finished_at is null and cancel_requested_at is not null order by id limit 500"
    )
    return [row["id"] for row in rows]


async def open_runs(db: Connection, pipeline_id: UUID) -> list[UUID]:
    """The runs of a pipeline that have not ended."""
    rows = await db.fetch(
        "select id from runs where pipeline_id = $1 and finished_at is null order by created_at, id", pipeline_id
    )
    return [row["id"] for row in rows]
