"""Runs as the protocol sees them: found, locked, claimed, kept alive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from contracts.runs import ErrorKind, Phase, RunStatus
from services.catalog.runs.domain import Ending, RunState
from services.catalog.runs.store import Executor
from shared.database import Connection

_STATE = """
status, attempt, queue_number, claimed_at, heard_at, cancel_requested_at, ending, head, lost_in_a_row,
outage_since, retries, conflicts, file_changes
"""
_COLUMNS = f"""
id, pipeline_id, pipeline, trigger, version, pins, wanted_version, draft_pins, parameters, dry_run, created_at,
started_at, phase_profiles, {_STATE}
"""

_find = f"select {_COLUMNS} from runs where id = $1"


@dataclass(frozen=True)
class StoredRun:
    """A run as the protocol sees it, and the facts that its messages carry."""

    id: UUID
    pipeline_id: UUID
    pipeline: str
    trigger: str
    version: int | None
    pins: Mapping[str, str]
    wanted_version: int | None
    draft_pins: Mapping[str, str]
    parameters: Mapping[str, Any]
    dry_run: bool
    created_at: datetime
    started_at: datetime | None
    phases: Sequence[Mapping[str, Any]]
    state: RunState

    @property
    def code(self) -> tuple[int | None, Mapping[str, str]]:
        """What it ran: a version, or the files of a draft; what it was to run, if it ended before it was queued."""
        if self.pins:
            return self.version, self.pins
        return self.wanted_version, self.draft_pins


async def find(db: Executor, run_id: UUID) -> StoredRun | None:
    """A run as it is now; None if there is no such run."""
    return _stored(await db.fetchrow(_find, run_id))


async def lock(db: Connection, run_id: UUID) -> StoredRun | None:
    """A run whose row is locked until the transaction ends."""
    return _stored(await db.fetchrow(f"{_find} for update", run_id))


async def queue(
    db: Connection, run_id: UUID, *, pins: Mapping[str, str], version: int | None, now: datetime
) -> StoredRun:
    """Pin the code of a run, and let it start; gives it as it is then."""
    run = _stored(
        await db.fetchrow(
            f"""
            update runs
            set queued_at = $2, heard_at = $2, queue_number = 1, pins = $3, version = $4
            where id = $1
            returning {_COLUMNS}
            """,
            run_id,
            now,
            pins,
            version,
        )
    )
    assert run is not None, "it waits"
    return run


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
        wanted_version=row["wanted_version"],
        draft_pins=row["draft_pins"] or {},
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
          -- The disk is not waited for: another sign of life follows, and all phases come with the end.
          and set_config('synchronous_commit', 'off', true) = 'off'
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
