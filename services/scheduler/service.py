"""The scheduler service: runs are asked for by the clock."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import asyncpg
import structlog

from contracts.messages import utc_now
from contracts.pipelines import FindPipeline, PipelineRemoved
from contracts.runs import RejectionReason, RunFinished, RunRejected, RunRequested
from contracts.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FindSchedule,
    ListSchedules,
    Schedule,
    Schedules,
    UpdateSchedule,
)
from services.scheduler import domain, store
from shared.background import background
from shared.bus import Bus, connect
from shared.database import database, transaction
from shared.due import when_due
from shared.errors import NotFound
from shared.outbox import emit, relay
from shared.pages import cursor_after, fitting
from shared.settings import Settings

log = structlog.get_logger()

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_ASKED_AT_A_TIME: Final = 50
"""Schedules that one transaction advances: the first requests of many leave while the others are worked out."""

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Scheduler:
    """Asks for the runs of pipelines when their schedules say so."""

    db: asyncpg.Pool
    bus: Bus
    told: dict[UUID, str] = field(default_factory=dict)
    """Schedules that are due and cannot run, and why, as the log has it."""

    async def remember_run(self, event: RunFinished) -> None:
        """Show a run as the last one of the schedule that asked for it."""
        await store.note_finished(self.db, event.run_id)

    async def forget_request(self, event: RunRejected) -> None:
        """Forget a request that did not become a run; remove the schedule whose pipeline was deleted."""
        if event.reason is RejectionReason.PIPELINE_REMOVED:
            await store.remove_that_asked(self.db, event.run_id)
        else:
            await store.forget_asked(self.db, event.run_id)

    async def remove_schedules(self, event: PipelineRemoved) -> None:
        """Remove the schedules of a pipeline that was deleted."""
        await store.remove_of_pipeline(self.db, event.pipeline_id)

    async def create_schedule(self, query: CreateSchedule) -> Schedule:
        """Make a schedule for a pipeline."""
        pipeline = await self.bus.ask(FindPipeline(pipeline=f"{query.namespace}.{query.layer}.{query.pipeline}"))
        now = utc_now()
        schedule = domain.new_schedule(query, pipeline.id, now)
        async with transaction(self.db) as connection:
            await store.add(connection, schedule, now)
            await store.notify_due(connection)
            return _found(await store.find(connection, query.id), query.id)

    async def list_schedules(self, query: ListSchedules) -> Schedules:
        """List schedules, each with its next times."""
        schedules, total = await store.page(self.db, query)
        shown = fitting(schedules)
        return Schedules(schedules=shown, total=total, next_cursor=cursor_after(query, shown, total))

    async def find_schedule(self, query: FindSchedule) -> Schedule:
        """Show one schedule."""
        return _found(await store.find(self.db, query.schedule_id), query.schedule_id)

    async def update_schedule(self, query: UpdateSchedule) -> Schedule:
        """Change a schedule; its next time is worked out anew if it says when anew."""
        async with transaction(self.db) as connection:
            schedule = _found(await store.lock_one(connection, query.schedule_id), query.schedule_id)
            now = utc_now()
            await store.change(connection, domain.changed_schedule(schedule, query, now), now)
            await store.notify_due(connection)
            return _found(await store.find(connection, query.schedule_id), query.schedule_id)

    async def delete_schedule(self, query: DeleteSchedule) -> None:
        """Remove a schedule."""
        if not await store.remove(self.db, query.schedule_id):
            raise _missing(query.schedule_id)

    async def ask_for_due_runs(self) -> datetime | None:
        """Ask for every run that is due, and say when the next one will be.

        A schedule whose times cannot be worked out is left as it is, for when they can be again.
        """
        left: dict[UUID, str] = {}
        while True:
            async with transaction(self.db) as connection:
                now = utc_now()
                found = await store.lock_due(connection, now, _ASKED_AT_A_TIME, list(left))
                left |= domain.problems(found)
                if due := [schedule for schedule in found if schedule.id not in left]:
                    requests = [request for schedule in due for request in domain.due_runs(schedule, now)]
                    await store.advance(connection, [domain.advanced(schedule, now) for schedule in due])
                    await store.note_asked(connection, requests, now)
                    await emit(connection, *requests)
            if len(found) < _ASKED_AT_A_TIME:
                self._tell_of(left)
                return await store.next_due(self.db, list(left))

    def _tell_of(self, problems: Mapping[UUID, str]) -> None:
        """Log the problems that schedules have, each once for as long as it lasts."""
        for schedule_id, problem in problems.items() - self.told.items():
            log.error("a schedule does not run", schedule_id=str(schedule_id), problem=problem)
        self.told.clear()
        self.told.update(problems)


def _found(found: T | None, schedule_id: UUID) -> T:
    if found is None:
        raise _missing(schedule_id)
    return found


def _missing(schedule_id: UUID) -> NotFound:
    return NotFound(f"no schedule {schedule_id}")


def wire(bus: Bus, scheduler: Scheduler) -> None:
    """Register what the scheduler hears, says, asks and answers."""
    bus.hear(RunFinished, scheduler.remember_run)
    bus.hear(RunRejected, scheduler.forget_request)
    bus.hear(PipelineRemoved, scheduler.remove_schedules)
    bus.say(RunRequested)
    bus.asks(FindPipeline)
    bus.answer(CreateSchedule, scheduler.create_schedule)
    bus.answer(ListSchedules, scheduler.list_schedules)
    bus.answer(FindSchedule, scheduler.find_schedule)
    bus.answer(UpdateSchedule, scheduler.update_schedule)
    bus.answer(DeleteSchedule, scheduler.delete_schedule)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[None]:
    """Run the scheduler service until the block is left."""
    bus = connect(settings, "scheduler")
    async with database(settings, "scheduler", _MIGRATIONS) as db:
        scheduler = Scheduler(db, bus)
        wire(bus, scheduler)

        async def ask() -> None:
            pause = settings.tick_interval_seconds
            await when_due(db, "scheduler_due", scheduler.ask_for_due_runs, at_most_seconds=pause)

        async with bus.running(), relay(db, bus), background(ask):
            yield
