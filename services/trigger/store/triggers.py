"""The SQL of triggers as users make, see and change them."""

from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.triggers import CreateTrigger, ListTriggers, Trigger, TriggerType
from services.trigger.domain import PipelineTrigger
from services.trigger.watches import Watch
from shared.database import Connection

Executor = Connection | asyncpg.Pool

_SHOWN = """
id, pipeline_id, type, config, enabled, cooldown_seconds, last_triggered_at, last_run_id, created_at, updated_at
"""


async def create(db: Connection, query: CreateTrigger, *, watch: Watch, pipeline_id: UUID, now: datetime) -> None:
    """Keep a new trigger; nothing happens if there is one of its id."""
    await db.execute(
        """
        insert into pipeline_triggers
          (id, pipeline_id, pipeline, type, config, source, label, enabled, cooldown_seconds, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
        on conflict (id) do nothing
        """,
        query.id,
        pipeline_id,
        query.pipeline,
        query.type,
        watch.model_dump(mode="json"),
        watch.source,
        watch.label,
        query.enabled,
        query.cooldown_seconds,
        now,
    )


async def find(db: Executor, trigger_id: UUID, pipeline: str) -> Trigger | None:
    """A trigger of a pipeline, as the API shows it."""
    row = await db.fetchrow(
        f"select {_SHOWN} from pipeline_triggers where id = $1 and pipeline = $2", trigger_id, pipeline
    )
    return Trigger.model_validate(dict(row)) if row else None


async def of_pipeline(db: Executor, query: ListTriggers) -> tuple[list[Trigger], int]:
    """A page of the triggers of a pipeline, the oldest first, and how many there are."""
    total = await db.fetchval("select count(*) from pipeline_triggers where pipeline = $1", query.pipeline)
    rows = await db.fetch(
        f"select {_SHOWN} from pipeline_triggers where pipeline = $1 order by created_at, id limit $2 offset $3",
        query.pipeline,
        query.limit,
        query.start,
    )
    return [Trigger.model_validate(dict(row)) for row in rows], total


async def change(db: Connection, trigger: PipelineTrigger, *, watch: Watch, now: datetime) -> None:
    """Keep what a user may change of a trigger."""
    await db.execute(
        """
        update pipeline_triggers
        set config = $2, source = $3, label = $4, enabled = $5, cooldown_seconds = $6, updated_at = $7
        where id = $1
        """,
        trigger.id,
        watch.model_dump(mode="json"),
        watch.source,
        watch.label,
        trigger.enabled,
        int(trigger.cooldown.total_seconds()),
        now,
    )


async def remove(db: Executor, trigger_id: UUID, pipeline: str) -> bool:
    """Remove a trigger with its decisions, and say whether there was one."""
    removed = await db.fetchval(
        "delete from pipeline_triggers where id = $1 and pipeline = $2 returning id", trigger_id, pipeline
    )
    return removed is not None


async def remove_of_pipeline(db: Executor, pipeline_id: UUID) -> None:
    """Remove the triggers of a pipeline with their decisions."""
    await db.execute("delete from pipeline_triggers where pipeline_id = $1", pipeline_id)


async def lock_edges(db: Connection) -> None:
    """Let no one else change which pipelines trigger which until the transaction ends."""
    await db.execute("select pg_advisory_xact_lock(hashtextextended('edges of ' || current_schema, 0))")


async def edges(db: Connection, but: UUID) -> list[tuple[str, str]]:
    """Which pipeline's success runs which pipeline, without what the trigger `but` says of it."""
    rows = await db.fetch(
        """
        select concat_ws('.', config->>'namespace', config->>'layer', config->>'pipeline') as upstream, pipeline
        from pipeline_triggers
        where type = $1 and id <> $2
        """,
        TriggerType.PIPELINE_SUCCESS,
        but,
    )
    return [(row["upstream"], row["pipeline"]) for row in rows]
