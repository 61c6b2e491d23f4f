"""The SQL of schedules."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from contracts.paging import PageRequest
from contracts.runs import Overlap, RunRequested, run_id_for
from contracts.schedules import Missed, Schedule
from services.scheduler.domain import ScheduleState, upcoming
from services.scheduler.timetable import Timetable, problem
from shared.database import Connection

Executor = Connection | asyncpg.Pool

_SHOWN = """
id, pipeline_id, cron, timezone, enabled, missed, overlap, last_run_id, last_run_at, next_run_at, created_at, updated_at
"""

_STATE = "id, pipeline_id, pipeline, cron, timezone, enabled, missed, overlap, next_run_at"


async def add(db: Executor, schedule: ScheduleState, now: datetime) -> None:
    """Keep a new schedule; nothing happens if there is one of its id."""
    await db.execute(
        """
        insert into schedules
          (id, pipeline_id, pipeline, cron, timezone, enabled, missed, overlap, next_run_at, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
        on conflict (id) do nothing
        """,
        schedule.id,
        schedule.pipeline_id,
        schedule.pipeline,
        schedule.timetable.cron,
        schedule.timetable.timezone,
        schedule.enabled,
        schedule.missed,
        schedule.overlap,
        schedule.next_run_at,
        now,
    )


async def change(db: Connection, schedule: ScheduleState, now: datetime) -> None:
    """Keep what a user changed."""
    await db.execute(
        """
        update schedules
        set cron = $2, timezone = $3, enabled = $4, missed = $5, overlap = $6, next_run_at = $7, updated_at = $8
        where id = $1
        """,
        schedule.id,
        schedule.timetable.cron,
        schedule.timetable.timezone,
        schedule.enabled,
        schedule.missed,
        schedule.overlap,
        schedule.next_run_at,
        now,
    )


async def find(db: Executor, schedule_id: UUID) -> Schedule | None:
    """A schedule as the API shows it."""
    row = await db.fetchrow(f"select {_SHOWN} from schedules where id = $1", schedule_id)
    return _shown(row) if row else None


async def page(db: Executor, wanted: PageRequest) -> tuple[list[Schedule], int]:
    """A page of schedules, the oldest first, and how many there are."""
    total = await db.fetchval("select count(*) from schedules")
    rows = await db.fetch(
        f"select {_SHOWN} from schedules order by created_at, id limit $1 offset $2", wanted.limit, wanted.start
    )
    return [_shown(row) for row in rows], total


async def remove(db: Executor, schedule_id: UUID) -> bool:
    """Remove a schedule, and say whether there was one."""
    return await db.fetchval("delete from schedules where id = $1 returning id", schedule_id) is not None


async def remove_of_pipeline(db: Executor, pipeline_id: UUID) -> None:
    """Remove the schedules of a pipeline."""
    await db.execute("delete from schedules where pipeline_id = $1", pipeline_id)


async def remove_that_asked(db: Executor, run_id: UUID) -> None:
    """Remove the schedule that asked for a run."""
    await db.execute(
        "delete from schedules where id = (select schedule_id from asked_runs where run_id = $1)",
        run_id,
    )


async def lock_one(db: Connection, schedule_id: UUID) -> ScheduleState | None:
    """One schedule, locked until the transaction ends."""
    row = await db.fetchrow(f"select {_STATE} from schedules where id = $1 for update", schedule_id)
    return _state(row) if row else None


async def lock_due(db: Connection, now: datetime, limit: int, left: Collection[UUID]) -> list[ScheduleState]:
    """Schedules that are due but for those that are left aside, locked until the transaction ends.

    Those that others hold are left to them.
    """
    rows = await db.fetch(
        f"""
        select {_STATE}
        from schedules
        where next_run_at <= $1 and id <> all($3)
        order by next_run_at
        limit $2
        for update skip locked
        """,
        now,
        limit,
        left,
    )
    return [_state(row) for row in rows]


async def advance(db: Connection, schedules: Sequence[ScheduleState]) -> None:
    """Keep when each of these schedules is due next."""
    await db.execute(
        """
        update schedules
        set next_run_at = advanced.next_run_at
        from unnest($1::uuid[], $2::timestamptz[]) as advanced (id, next_run_at)
        where schedules.id = advanced.id
        """,
        [schedule.id for schedule in schedules],
        [schedule.next_run_at for schedule in schedules],
    )


async def note_asked(db: Connection, requests: Sequence[RunRequested], now: datetime) -> None:
    """Keep which schedule asked for which run, until that run's end or rejection is heard."""
    await db.execute(
        """
        insert into asked_runs (run_id, schedule_id, asked_at)
        select run_id, schedule_id, $3
        from unnest($1::uuid[], $2::uuid[]) as asked (run_id, schedule_id)
        on conflict do nothing
        """,
        [run_id_for(request.pipeline, request.dedupe_key or "") for request in requests],
        [request.asked_by for request in requests],
        now,
    )


async def note_finished(db: Executor, run_id: UUID) -> None:
    """A run that was asked for was recorded, and has ended: it is its schedule's last, unless a later one was."""
    await db.execute(
        """
        with finished as (
          select schedule_id, asked_at from asked_runs where run_id = $1
        ), forgotten as (
          delete from asked_runs
          using finished
          where asked_runs.run_id = $1
            or (asked_runs.schedule_id = finished.schedule_id and asked_runs.asked_at < finished.asked_at)
        )
        update schedules
        set last_run_id = $1, last_run_at = finished.asked_at
        from finished
        where schedules.id = finished.schedule_id
          and (schedules.last_run_at is null or schedules.last_run_at <= finished.asked_at)
        """,
        run_id,
    )


async def forget_asked(db: Executor, run_id: UUID) -> None:
    """A request did not become a run."""
    await db.execute("delete from asked_runs where run_id = $1", run_id)


async def next_due(db: Executor, left: Collection[UUID]) -> datetime | None:
    """When the next schedule is due that is not left aside."""
    due: datetime | None = await db.fetchval("select min(next_run_at) from schedules where id <> all($1)", left)
    return due


async def notify_due(db: Executor) -> None:
    """Tell every replica, once it is committed, that a schedule may be due sooner than it knew."""
    await db.execute("select pg_notify('scheduler_due', '')")


def _shown(row: Any) -> Schedule:
    times = Timetable(row["cron"], row["timezone"])
    why = problem(times)
    following = [] if why else upcoming(times, row["next_run_at"])
    return Schedule.model_validate({**row, "upcoming": following, "problem": why})


def _state(row: Any) -> ScheduleState:
    return ScheduleState(
        id=row["id"],
        pipeline_id=row["pipeline_id"],
        pipeline=row["pipeline"],
        timetable=Timetable(row["cron"], row["timezone"]),
        enabled=row["enabled"],
        missed=Missed(row["missed"]),
        overlap=Overlap(row["overlap"]),
        next_run_at=row["next_run_at"],
    )
