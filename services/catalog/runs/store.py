"""The SQL of runs: requests, claims, ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from contracts.messages import derived_id
from contracts.reports import AttemptReport
from contracts.runs import AttemptFinished, ErrorKind, ListRuns, Phase, RunRequested, RunStatus
from services.catalog.runs.domain import Ending, PipelineState, Rejection, RunState
from shared.database import Connection

Executor = Connection | asyncpg.Pool

_STATE = """
status, attempt, queue_number, claimed_at, heard_at, cancel_requested_at, ending, head, lost_in_a_row,
outage_since, retries, conflicts, file_changes
"""


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


# Requests


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
    now: datetime,
) -> None:
    """Record a pending run."""
    await db.execute(
        """
        insert into runs
          (id, pipeline_id, pipeline, trigger, parameters, dry_run, wanted_version, draft_pins, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        run_id,
        pipeline_id,
        request.pipeline,
        request.trigger,
        request.parameters,
        request.dry_run,
        request.version,
        draft_pins,
        now,
    )


# Queuing


@dataclass(frozen=True)
class WaitingRun:
    """A pending run that may be queued next."""

    id: UUID
    trigger: str
    wanted_version: int | None
    draft_pins: Mapping[str, str] | None


async def oldest_waiting(db: Connection, pipeline_id: UUID) -> WaitingRun | None:
    """The run of a locked pipeline that is to be queued now; None if none waits or one is queued."""
    row = await db.fetchrow(
        """
        select id, trigger, wanted_version, draft_pins
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


async def version_pins(db: Connection, pipeline_id: UUID, version: int) -> Mapping[str, str] | None:
    """The pins of a published version; None if it is not kept (any more)."""
    pins: Mapping[str, str] | None = await db.fetchval(
        "select published_versions from pipeline_versions where pipeline_id = $1 and version_number = $2",
        pipeline_id,
        version,
    )
    return pins


async def set_queued(
    db: Connection, run_id: UUID, *, pins: Mapping[str, str], version: int | None, now: datetime
) -> None:
    """Pin the code of a run, and let it start."""
    await db.execute(
        """
        update runs
        set queued_at = $2, heard_at = $2, queue_number = 1, pins = $3, version = $4
        where id = $1
        """,
        run_id,
        now,
        pins,
        version,
    )


# The protocol


@dataclass(frozen=True)
class StoredRun:
    """A run as the protocol sees it, and the facts that its messages carry."""

    id: UUID
    pipeline_id: UUID
    pipeline: str
    trigger: str
    version: int | None
    pins: Mapping[str, str]
    parameters: Mapping[str, Any]
    dry_run: bool
    created_at: datetime
    started_at: datetime | None
    phases: Sequence[Mapping[str, Any]]
    state: RunState


async def find(db: Executor, run_id: UUID) -> StoredRun | None:
    """A run as it is now; None if there is no such run."""
    return _stored(await db.fetchrow(_find, run_id))


async def lock(db: Connection, run_id: UUID) -> StoredRun | None:
    """A run whose row is locked until the transaction ends."""
    return _stored(await db.fetchrow(f"{_find} for update", run_id))


_find = f"""
select id, pipeline_id, pipeline, trigger, version, pins, parameters, dry_run, created_at, started_at,
  phase_profiles, {_STATE}
from runs
where id = $1
"""


def _stored(row: asyncpg.Record | None) -> StoredRun | None:
    if row is None:
        return None
    ending = row["ending"]
    return StoredRun(
        id=row["id"],
        pipeline_id=row["pipeline_id"],
        pipeline=row["pipeline"],
        trigger=row["trigger"],
        version=row["version"],
        pins=row["pins"] or {},
        parameters=row["parameters"],
        dry_run=row["dry_run"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        phases=row["phase_profiles"],
        state=RunState(
            status=RunStatus(row["status"]),
            attempt=row["attempt"],
            queue_number=row["queue_number"],
            claimed_at=row["claimed_at"],
            heard_at=row["heard_at"],
            cancel_requested=row["cancel_requested_at"] is not None,
            ending=Ending(RunStatus(ending["status"]), ending["error"], ErrorKind(ending["kind"])) if ending else None,
            head=row["head"],
            lost_in_a_row=row["lost_in_a_row"],
            outage_since=row["outage_since"],
            retries=row["retries"],
            conflicts=row["conflicts"],
            file_changes=row["file_changes"],
        ),
    )


async def save(db: Connection, run_id: UUID, state: RunState) -> None:
    """Keep what a decision changed of a locked run that goes on."""
    ending = state.ending
    await db.execute(
        """
        update runs
        set status = $2, attempt = $3, queue_number = $4, claimed_at = $5, heard_at = $6, ending = $7, head = $8,
          lost_in_a_row = $9, outage_since = $10, retries = $11, conflicts = $12, file_changes = $13,
          started_at = coalesce(started_at, $5)
        where id = $1
        """,
        run_id,
        state.status,
        state.attempt,
        state.queue_number,
        state.claimed_at,
        state.heard_at,
        {"status": ending.status, "error": ending.error, "kind": ending.kind} if ending else None,
        state.head,
        state.lost_in_a_row,
        state.outage_since,
        state.retries,
        state.conflicts,
        state.file_changes,
    )


async def attempt_of_claim(db: Connection, run_id: UUID, claim: str) -> int | None:
    """The attempt that a claim was given before; None if it is a new one."""
    attempt: int | None = await db.fetchval(
        "select attempt from run_claims where run_id = $1 and claim = $2", run_id, claim
    )
    return attempt


async def keep_claim(db: Connection, run_id: UUID, claim: str, attempt: int, now: datetime) -> None:
    """Remember which attempt a claim was given."""
    await db.execute(
        "insert into run_claims (run_id, claim, attempt, claimed_at) values ($1, $2, $3, $4)",
        run_id,
        claim,
        attempt,
        now,
    )


async def forget_phases(db: Connection, run_id: UUID) -> None:
    """Begin anew with the phases of a run: a new attempt has none yet."""
    await db.execute("update runs set phase_profiles = '[]' where id = $1", run_id)


async def note_progress(db: Executor, run_id: UUID, attempt: int, phase: Phase | None, now: datetime) -> None:
    """Note that the newest attempt is alive and, if it says so, that a phase of it is done."""
    await db.execute(
        """
        update runs
        set heard_at = greatest(heard_at, $3),
          phase_profiles = case
            when $4::jsonb is null or phase_profiles @> jsonb_build_array($4::jsonb) then phase_profiles
            else phase_profiles || $4::jsonb
          end
        where id = $1 and attempt = $2 and finished_at is null
        """,
        run_id,
        attempt,
        now,
        phase.model_dump(mode="json") if phase else None,
    )


async def silent_runs(db: Executor, *, silent_since: datetime, unclaimed_since: datetime) -> list[UUID]:
    """Runs whose runner, or whose message, may be lost."""
    rows = await db.fetch(
        """
        select id
        from runs
        where finished_at is null and queued_at is not null
          and heard_at <= case when attempt = 0 then $2::timestamptz else $1::timestamptz end
        order by heard_at
        limit 100
        """,
        silent_since,
        unclaimed_since,
    )
    return [row["id"] for row in rows]


# Ends


async def finish(
    db: Connection, run_id: UUID, end: AttemptFinished, report: AttemptReport | None, now: datetime
) -> bool:
    """Move a run to its terminal state; False if it has one."""
    return (
        await db.fetchval(
            """
            update runs
            set status = $2, finished_at = $3, decided_by = $4, error = $5, error_kind = $6, branch = $7,
              rows_written = $8, files_read = $9, phase_profiles = $10, inputs = $11, outputs = $12,
              report_key = $13, logs_s3_path = $14, logs = $15,
              duration_ms = (extract(epoch from $3 - started_at) * 1000)::bigint,
              queued_at = coalesce(queued_at, $3)
            where id = $1 and status in ('pending', 'running')
            returning id
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
        )
        is not None
    )


async def keep_outcome(db: Connection, run_id: UUID, status: RunStatus) -> None:
    """Keep the terminal state of a request's run, for good."""
    await db.execute("update run_requests set terminal_status = $2 where run_id = $1", run_id, status)


async def insert_quality_results(
    db: Connection, run_id: UUID, pipeline_id: UUID, report: AttemptReport, now: datetime
) -> None:
    """Keep how the tests judged a run, once."""
    await db.executemany(
        """
        insert into quality_results
          (id, run_id, pipeline_id, test_name, status, severity, value, duration_ms, sample_rows, message, ran_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
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


# Lists

_SHOWN = """
id, pipeline_id, pipeline, version, status, trigger, attempt, branch, started_at, finished_at, duration_ms,
rows_written, error, error_kind, phase_profiles, inputs, outputs, parameters, dry_run, logs_s3_path, created_at
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
        select test_name as name, status, severity, value::bigint as value, duration_ms, sample_rows, message
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
