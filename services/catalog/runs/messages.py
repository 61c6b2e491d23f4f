"""What catalog says about a run, made from its rows."""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from contracts.messages import derived_id
from contracts.names import Qualified
from contracts.runs import (
    Attempt,
    AttemptFinished,
    EndRun,
    PinnedFile,
    Run,
    RunFinished,
    RunQueued,
    RunRejected,
    RunRequested,
)
from contracts.tables import TableChanged
from services.catalog.runs import domain
from services.catalog.runs.store import protocol
from shared.pages import fits

_LISTED_COLUMNS: Final = 200
"""Of those that a dry run would change, where the run is too long for a message."""


def rejected(run_id: UUID, request: RunRequested, why: domain.Rejection) -> RunRejected:
    """Say that a request does not become a run."""
    return RunRejected(
        event_id=derived_id("run.rejected", run_id),
        run_id=run_id,
        pipeline=request.pipeline,
        trigger=request.trigger,
        reason=why.reason,
        message=why.message,
        asked_by=request.asked_by,
        pipeline_id=request.pipeline_id,
    )


def queued(run: protocol.StoredRun, queue_number: int) -> RunQueued:
    """Say that a run may start."""
    return RunQueued(
        event_id=derived_id("run.queued", run.id, queue_number),
        run_id=run.id,
        pipeline=run.pipeline,
        pipeline_id=run.pipeline_id,
        trigger=run.trigger,
        queue_number=queue_number,
    )


def attempt(run: protocol.StoredRun, state: domain.RunState) -> Attempt:
    """Tell a runner what to work on."""
    return Attempt(
        run_id=run.id,
        attempt=state.attempt,
        pipeline=run.pipeline,
        pipeline_id=run.pipeline_id,
        version=run.version,
        trigger=run.trigger,
        files=[PinnedFile(path=path, version_id=version) for path, version in sorted(run.pins.items())],
        parameters=dict(run.parameters),
        dry_run=run.dry_run,
        head=state.head or "",
        retries=state.retries,
        conflicts=state.conflicts,
        file_changes=state.file_changes,
    )


def end_order(run: protocol.StoredRun, state: domain.RunState, ending: domain.Ending) -> EndRun:
    """Tell a runner how the run is to end."""
    return EndRun(
        run_id=run.id,
        attempt=state.attempt,
        pipeline=run.pipeline,
        pipeline_id=run.pipeline_id,
        dry_run=run.dry_run,
        head=state.head or "",
        status=ending.status,
        error=ending.error,
        error_kind=ending.kind,
    )


def finished(run: protocol.StoredRun, end: AttemptFinished, now: datetime) -> RunFinished:
    """Say how a run ended."""
    started = run.started_at
    return RunFinished(
        event_id=derived_id("run.finished", run.id),
        occurred_at=now,
        run_id=run.id,
        pipeline=run.pipeline,
        pipeline_id=run.pipeline_id,
        version=run.version,
        trigger=run.trigger,
        status=end.status,
        attempt=end.attempt,
        started_at=started,
        finished_at=now,
        duration_ms=int((now - started).total_seconds() * 1000) if started else None,
        rows_written=end.rows_written,
        phases=end.phases,
        quality=end.quality,
        files_read=end.files_read,
        tables=end.tables,
        dry_run=run.dry_run,
        error=end.error,
        error_kind=end.error_kind,
        report_key=end.report_key,
    )


def changed_tables(run: protocol.StoredRun, end: AttemptFinished, now: datetime) -> list[TableChanged]:
    """Say which tables have a new snapshot."""
    changed = []
    for written in end.tables:
        namespace, layer, name = Qualified.parse(written.table)
        changed.append(
            TableChanged(
                event_id=derived_id("table.changed", run.id, written.table),
                occurred_at=now,
                namespace=namespace,
                layer=layer,
                name=name,
                snapshot=written.snapshot,
                run_id=run.id,
            )
        )
    return changed


def shown(row: asyncpg.Record, results: list[asyncpg.Record]) -> Run:
    """Show a run as the API does."""
    namespace, layer, name = Qualified.parse(row["pipeline"])
    run = Run.model_validate(
        {
            **dict(row),
            "namespace": namespace,
            "layer": layer,
            "pipeline": name,
            "quality": [dict(result) for result in results],
        }
    )
    return run if fits(run) else _in_short(run)


def _in_short(run: Run) -> Run:
    """The run without what may be long: the report in S3 has all of it."""
    quality = [result.model_copy(update={"sample_rows": [], "compiled_sql": None}) for result in run.quality]
    changes = [{**change, "schema_changes": change["schema_changes"][:_LISTED_COLUMNS]} for change in run.changes]
    return run.model_copy(update={"quality": quality, "changes": changes})
