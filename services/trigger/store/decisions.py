"""The SQL of decisions: one for each event on each trigger."""

from typing import Any
from uuid import UUID

import asyncpg

from contracts.triggers import Decision, ListDecisions, TriggerDecision
from services.trigger.domain import Cause, Decided, Firing
from shared.database import Connection

Executor = Connection | asyncpg.Pool

_DECIDED = """
id, trigger_id, cause_id, cause, decision, reason, run_id, due_at, coalesced_into, fired_at, created_at
"""


async def add(db: Connection, decided: Decided) -> bool:
    """Keep a decision; False, and nothing, if its event was decided on before."""
    kept = await db.fetchval(
        f"""
        insert into trigger_decisions ({_DECIDED})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict do nothing
        returning id
        """,
        decided.id,
        decided.trigger_id,
        decided.cause.id,
        decided.cause.subject,
        decided.decision,
        decided.reason,
        decided.run_id,
        decided.due_at,
        decided.coalesced_into,
        decided.fired_at,
        decided.decided_at,
    )
    return kept is not None


async def mark_fired(db: Connection, firing: Firing) -> None:
    """Keep when the run of a deferred decision was asked for."""
    await db.execute("update trigger_decisions set fired_at = $2 where id = $1", firing.decision_id, firing.fired_at)


async def decided(db: Connection, decision_id: UUID) -> Decided | None:
    """A decision by its id."""
    row = await db.fetchrow(f"select {_DECIDED} from trigger_decisions where id = $1", decision_id)
    return _decided(row) if row else None


async def for_run(db: Connection, run_id: UUID) -> Decided | None:
    """The decision that asked for a run."""
    row = await db.fetchrow(f"select {_DECIDED} from trigger_decisions where run_id = $1", run_id)
    return _decided(row) if row else None


async def withdraw(db: Connection, decided: Decided) -> None:
    """Keep that a decision became a skip after all."""
    await db.execute(
        """
        update trigger_decisions
        set decision = $2, reason = $3, run_id = null, due_at = null, fired_at = null
        where id = $1
        """,
        decided.id,
        decided.decision,
        decided.reason,
    )


async def firing_before(db: Connection, trigger_id: UUID, run_id: UUID) -> Firing | None:
    """The newest firing of a trigger but that of this run."""
    row = await db.fetchrow(
        """
        select id, run_id, fired_at
        from trigger_decisions
        where trigger_id = $1 and fired_at is not null and run_id <> $2
        order by fired_at desc
        limit 1
        """,
        trigger_id,
        run_id,
    )
    return Firing(row["id"], row["run_id"], row["fired_at"]) if row else None


async def find(db: Executor, decision_id: UUID) -> TriggerDecision | None:
    """A decision as the API shows it."""
    rows = await _shown(db, "shown.id = $1", decision_id)
    return rows[0] if rows else None


async def of_trigger(db: Executor, query: ListDecisions) -> tuple[list[TriggerDecision], int]:
    """A page of what a trigger decided, the newest first, and how many decisions there are."""
    total = await db.fetchval("select count(*) from trigger_decisions where trigger_id = $1", query.trigger_id)
    page = await _shown(
        db,
        "shown.trigger_id = $1 order by shown.created_at desc, shown.id limit $2 offset $3",
        query.trigger_id,
        query.limit,
        query.start,
    )
    return page, total


async def _shown(db: Executor, condition: str, *values: Any) -> list[TriggerDecision]:
    rows = await db.fetch(
        f"""
        select
          shown.id, shown.trigger_id, shown.decision, shown.reason, shown.cause_id as event_id, shown.cause as event,
          coalesce(shown.run_id, joined.run_id) as run_id, coalesce(shown.due_at, joined.due_at) as due_at,
          shown.coalesced_into, coalesce(shown.fired_at, joined.fired_at) as fired_at, shown.created_at
        from trigger_decisions as shown
          left join trigger_decisions as joined on joined.id = shown.coalesced_into
        where {condition}
        """,
        *values,
    )
    return [TriggerDecision.model_validate(dict(row)) for row in rows]


def _decided(row: Any) -> Decided:
    return Decided(
        id=row["id"],
        trigger_id=row["trigger_id"],
        cause=Cause(row["cause_id"], row["cause"]),
        decision=Decision(row["decision"]),
        reason=row["reason"],
        decided_at=row["created_at"],
        run_id=row["run_id"],
        due_at=row["due_at"],
        coalesced_into=row["coalesced_into"],
        fired_at=row["fired_at"],
    )
