"""What moves triggers: each function takes triggers under their row locks, and keeps and says what follows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from contracts.messages import utc_now
from services.trigger import domain
from services.trigger.domain import Cause, PipelineTrigger, Step
from services.trigger.store import decisions, states
from shared.database import Connection, transaction
from shared.outbox import emit

log = structlog.get_logger()

_RELEASED_AT_A_TIME: Final = 100


async def decide(db: asyncpg.Pool, source: str, causes: Sequence[Cause]) -> None:
    """Let every trigger that watches this source decide on events, one after the other."""
    async with transaction(db) as connection:
        watching = await states.lock_watching(connection, source)
        for cause in causes:
            now = utc_now()
            watching = await keep(connection, [(trigger, domain.decide(trigger, cause, now)) for trigger in watching])


async def skip(db: asyncpg.Pool, source: str, cause: Cause, reason: str) -> None:
    """Note on every trigger that watches this source why it does nothing about an event."""
    async with transaction(db) as connection:
        watching = await states.lock_watching(connection, source)
        now = utc_now()
        await keep(connection, [(trigger, domain.skip(trigger, cause, reason, now)) for trigger in watching])


async def end(db: asyncpg.Pool, run_id: UUID) -> None:
    """A run has ended: release what waited for it."""
    async with transaction(db) as connection:
        waiting = await states.lock_waiting(connection, run_id)
        now = utc_now()
        await keep(connection, [(trigger, domain.end(trigger, run_id, now)) for trigger in waiting])


async def refuse(db: asyncpg.Pool, run_id: UUID, reason: str) -> None:
    """A request did not become a run: its decision was a skip after all, and what waited for it is released."""
    async with transaction(db) as connection:
        trigger = await states.lock_asking(connection, run_id)
        decided = await decisions.for_run(connection, run_id)
        if trigger is None or decided is None:
            return
        now = utc_now()
        previous = await decisions.firing_before(connection, trigger.id, run_id)
        await withdraw(connection, trigger, decided.id, reason, now)
        await keep(connection, [(trigger, domain.refuse(trigger, run_id, previous, now))])


async def repeat_request(db: asyncpg.Pool, trigger_id: UUID, run_id: UUID) -> None:
    """Ask again for a run of which catalog never heard; asked for twice, it is still one run."""
    async with transaction(db) as connection:
        trigger = await states.lock_one(connection, trigger_id)
        if trigger is None or trigger.waits_for != run_id or trigger.last is None:
            return
        log.warning("a request was lost and is repeated", trigger_id=trigger_id, run_id=run_id)
        await emit(connection, domain.repeated_request(trigger, trigger.last, utc_now()))


async def release_due(db: asyncpg.Pool) -> datetime | None:
    """Fire what was deferred and is due, and say when the next firing will be."""
    while True:
        async with transaction(db) as connection:
            now = utc_now()
            due = await states.lock_due(connection, now, _RELEASED_AT_A_TIME)
            await keep(connection, [(trigger, domain.release(trigger, now)) for trigger in due])
        if len(due) < _RELEASED_AT_A_TIME:
            return await states.next_due(db)


async def keep(connection: Connection, steps: Sequence[tuple[PipelineTrigger, Step]]) -> list[PipelineTrigger]:
    """Keep each step (a trigger as it was, and what becomes of it) that was not taken before, and say what it says.

    Gives the triggers as they are then.
    """
    kept = [(before, step) for before, step in steps if await states.keep(connection, before, step)]
    await emit(connection, *(event for _, step in kept for event in step.events))
    if any(step.trigger != before and step.trigger.waits_for_time_only for before, step in kept):
        await states.notify_due(connection)
    changed = {before.id: step.trigger for before, step in kept}
    return [changed.get(before.id, before) for before, _ in steps]


async def withdraw(
    connection: Connection, trigger: PipelineTrigger, decision_id: UUID, reason: str, now: datetime
) -> None:
    """Make a skip of a decision whose run will not be."""
    decided = await decisions.decided(connection, decision_id)
    if decided is None:
        return
    skipped = domain.withdraw(decided, reason)
    await decisions.withdraw(connection, skipped)
    await emit(connection, domain.announcement(skipped, trigger.pipeline, now))
