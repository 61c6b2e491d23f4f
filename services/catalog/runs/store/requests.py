"""Requests and their outcomes, and the runs that wait."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from contracts.runs import RunRequested, RunStatus
from services.catalog.runs.domain import Rejection
from services.catalog.runs.store import Executor
from shared.database import Connection


@dataclass(frozen=True)
class KnownRequest:
    """A request that was decided before, and what became of it."""

    run_id: UUID
    pipeline: str
    pipeline_id: UUID | None
    dry_run: bool
    body_hash: str | None
    rejection: str | None
    message: str | None
    terminal_status: RunStatus | None


async def find_request(db: Executor, run_id: UUID) -> KnownRequest | None:
    """What became of the request of this id; None if it was never decided."""
    row = await db.fetchrow(
        """
        select run_id, pipeline, pipeline_id, dry_run, body_hash, rejection, message, terminal_status
        from run_requests
        where run_id = $1
        """,
        run_id,
    )
    if row is None:
        return None
    terminal = row["terminal_status"]
    return KnownRequest(**{**dict(row), "terminal_status": RunStatus(terminal) if terminal else None})


async def claim_request(
    db: Connection,
    run_id: UUID,
    request: RunRequested,
    *,
    pipeline_id: UUID | None,
    body_hash: str | None,
    rejection: Rejection | None,
) -> bool:
    """Keep the outcome of a request; False if another replica has decided it meanwhile."""
    return (
        await db.fetchval(
            """
            insert into run_requests (run_id, pipeline, pipeline_id, dry_run, body_hash, rejection, message)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict do nothing
            returning run_id
            """,
            run_id,
            request.pipeline,
            pipeline_id,
            request.dry_run,
            body_hash,
            rejection.reason if rejection else None,
            rejection.message if rejection else None,
        )
        is not None
    )


async def insert_run(
    db: Connection,
    run_id: UUID,
    request: RunRequested,
    *,
    pipeline_id: UUID,
    draft_pins: Mapping[str, str] | None,
    retry_of: UUID | None,
    now: datetime,
) -> None:
    """Record a pending run."""
    await db.execute(
        """
        insert into runs
          (id, pipeline_id, pipeline, trigger, parameters, dry_run, wanted_version, draft_pins, retry_of, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        run_id,
        pipeline_id,
        request.pipeline,
        request.trigger,
        request.parameters,
        request.dry_run,
        request.version,
        draft_pins,
        retry_of,
        now,
    )


@dataclass(frozen=True)
class WaitingRun:
    """A pending run that may be queued next."""

    id: UUID
    trigger: str
    wanted_version: int | None
    draft_pins: Mapping[str, str] | None
    retry_of: UUID | None


async def oldest_waiting(db: Connection, pipeline_id: UUID) -> WaitingRun | None:
    """The run of a locked pipeline that is to be queued now; None if none waits or one is queued."""
    row = await db.fetchrow(
        """
        select id, trigger, wanted_version, draft_pins, retry_of
        from runs
        where pipeline_id = $1 and queued_at is null and finished_at is null
          and not exists (
            select from runs where pipeline_id = $1 and queued_at is not null and finished_at is null
          )
        order by created_at, id
        limit 1
        """,
        pipeline_id,
    )
    return WaitingRun(**dict(row)) if row else None
