"""The SQL of what triggers last did and are about to do, under their row locks."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from services.trigger.domain import Deferred, Firing, PipelineTrigger, Step
from services.trigger.store import decisions
from shared.database import Connection

Executor = Connection | asyncpg.Pool

_STATE = """
id, pipeline_id, pipeline, label, enabled, cooldown_seconds, last_decision_id, last_run_id, last_triggered_at,
waits_for, deferred_id, due_at, overdue_since
"""


async def concerned(db: Executor, source: str, run_id: UUID) -> bool:
    """Whether any trigger watches a source, or waits for a run."""
    found: bool = await db.fetchval(
        "select exists (select from pipeline_triggers where source = $1 or waits_for = $2)", source, run_id
    )
    return found


async def lock_watching(db: Connection, source: str) -> list[PipelineTrigger]:
    """The triggers that watch a source, locked until the transaction ends, always in the same order."""
    return await _locked(db, "source = $1 order by id for update", source)


async def lock_waiting(db: Connection, run_id: UUID) -> list[PipelineTrigger]:
    """The triggers whose last firing is this run, its end unheard, locked until the transaction ends."""
    return await _locked(db, "waits_for = $1 order by id for update", run_id)


async def lock_due(db: Connection, now: datetime, limit: int) -> list[PipelineTrigger]:
    """Triggers with a firing to release now, locked; those that others hold are left to them."""
    return await _locked(
        db,
        "due_at <= $1 and waits_for is null order by due_at limit $2 for update skip locked",
        now,
        limit,
    )


async def lock_asking(db: Connection, run_id: UUID) -> PipelineTrigger | None:
    """The trigger that asked for a run, locked until the transaction ends."""
    found = await _locked(db, "id = (select trigger_id from trigger_decisions where run_id = $1) for update", run_id)
    return found[0] if found else None


async def lock_one(db: Connection, trigger_id: UUID) -> PipelineTrigger | None:
    """One trigger, locked until the transaction ends."""
    found = await _locked(db, "id = $1 for update", trigger_id)
    return found[0] if found else None


async def next_due(db: Executor) -> datetime | None:
    """When the next firing is to be released."""
    due: datetime | None = await db.fetchval("select min(due_at) from pipeline_triggers where waits_for is null")
    return due


async def take_overdue(db: Executor, now: datetime, patience: timedelta) -> list[PipelineTrigger]:
    """Triggers whose firing waits too long for the end of a run, each taken by one replica, and again after as long."""
    rows = await db.fetch(
        f"""
        update pipeline_triggers
        set overdue_since = $1
        where id in (
          select id
          from pipeline_triggers
          where overdue_since <= $2
          order by overdue_since
          limit 100
          for update skip locked
        )
        returning {_STATE}
        """,
        now,
        now - patience,
    )
    return [_trigger(row) for row in rows]


async def keep(db: Connection, before: PipelineTrigger, step: Step) -> bool:
    """Keep what a step decided and how its trigger is now; False, and nothing, if the event was decided before."""
    if step.decided is not None and not await decisions.add(db, step.decided):
        return False
    if step.fired is not None and step.decided is None:
        await decisions.mark_fired(db, step.fired)
    if step.trigger != before:
        await save(db, step.trigger)
    return True


async def save(db: Connection, trigger: PipelineTrigger) -> None:
    """Keep what a trigger last did and is about to do."""
    last, deferred = trigger.last, trigger.deferred
    await db.execute(
        """
        update pipeline_triggers
        set
          last_decision_id = $2, last_run_id = $3, last_triggered_at = $4,
          waits_for = $5, deferred_id = $6, due_at = $7, overdue_since = $8
        where id = $1
        """,
        trigger.id,
        last and last.decision_id,
        last and last.run_id,
        last and last.fired_at,
        trigger.waits_for,
        deferred and deferred.decision_id,
        deferred and deferred.due_at,
        trigger.overdue_since,
    )


async def notify_due(db: Connection) -> None:
    """Tell every replica, if the transaction commits, that a firing may be due sooner than it knew."""
    await db.execute("select pg_notify('trigger_due', '')")


async def _locked(db: Connection, condition: str, *values: Any) -> list[PipelineTrigger]:
    rows = await db.fetch(f"select {_STATE} from pipeline_triggers where {condition}", *values)
    return [_trigger(row) for row in rows]


def _trigger(row: Any) -> PipelineTrigger:
    last = deferred = None
    if row["last_run_id"] is not None:
        last = Firing(row["last_decision_id"], row["last_run_id"], row["last_triggered_at"])
    if row["deferred_id"] is not None:
        deferred = Deferred(row["deferred_id"], row["due_at"])
    return PipelineTrigger(
        id=row["id"],
        pipeline_id=row["pipeline_id"],
        pipeline=row["pipeline"],
        label=row["label"],
        enabled=row["enabled"],
        cooldown=timedelta(seconds=row["cooldown_seconds"]),
        last=last,
        waits_for=row["waits_for"],
        deferred=deferred,
        overdue_since=row["overdue_since"],
    )
