"""The rules of schedules: which runs are due, and when the next one is (`triggers.md`, Schedules)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, assert_never
from uuid import UUID

from contracts.messages import derived_id
from contracts.runs import Overlap, RunRequested
from contracts.schedules import CreateSchedule, Missed, UpdateSchedule
from services.scheduler.timetable import Timetable, problem, timetable
from shared.errors import Invalid

UPCOMING: Final = 5
MOST_MISSED: Final = 100
"""How many missed times are made up for, the latest ones."""
LATE: Final = timedelta(minutes=1)
"""A time that is found to be due later than this was missed: no scheduler was there."""


@dataclass(frozen=True)
class ScheduleState:
    """What decides on the runs of a schedule."""

    id: UUID
    pipeline_id: UUID
    pipeline: str
    timetable: Timetable
    enabled: bool
    missed: Missed
    overlap: Overlap
    next_run_at: datetime | None
    """None while it is disabled."""


def new_schedule(query: CreateSchedule, pipeline_id: UUID, now: datetime) -> ScheduleState:
    """The schedule that is asked for; `Invalid` if it says what cannot be."""
    times = timetable(query.cron, query.timezone)
    return ScheduleState(
        id=query.id,
        pipeline_id=pipeline_id,
        pipeline=f"{query.namespace}.{query.layer}.{query.pipeline}",
        timetable=times,
        enabled=query.enabled,
        missed=query.missed,
        overlap=_overlap(query.missed, query.overlap, Overlap.SKIP),
        next_run_at=times.next_after(now) if query.enabled else None,
    )


def changed_schedule(schedule: ScheduleState, query: UpdateSchedule, now: datetime) -> ScheduleState:
    """The schedule with what is given; times that are due already stay due unless it says when anew."""
    times = _changed_times(schedule, query)
    missed = query.missed or schedule.missed
    changed = replace(
        schedule,
        timetable=times,
        enabled=schedule.enabled if query.enabled is None else query.enabled,
        missed=missed,
        overlap=_overlap(missed, query.overlap, schedule.overlap),
    )
    if changed.timetable == schedule.timetable and changed.enabled == schedule.enabled:
        return changed
    return replace(changed, next_run_at=times.next_after(now) if changed.enabled else None)


def problems(schedules: Iterable[ScheduleState]) -> dict[UUID, str]:
    """Those of these schedules whose times cannot be worked out, and why."""
    found = {schedule.id: problem(schedule.timetable) for schedule in schedules}
    return {schedule_id: why for schedule_id, why in found.items() if why is not None}


def due_runs(schedule: ScheduleState, now: datetime) -> tuple[RunRequested, ...]:
    """The runs to ask for now, the oldest first: one on time, and what `missed` says of those that are late."""
    if schedule.next_run_at is None or now < schedule.next_run_at:
        return ()
    match schedule.missed:
        case Missed.LATEST:
            times = _due_times(schedule, schedule.next_run_at, now, 1)
        case Missed.ALL:
            times = _due_times(schedule, schedule.next_run_at, now, MOST_MISSED)
        case Missed.NONE:
            times = tuple(time for time in _due_times(schedule, schedule.next_run_at, now, 1) if now - time <= LATE)
        case missed:
            assert_never(missed)
    return tuple(_request(schedule, time, now) for time in times)


def advanced(schedule: ScheduleState, now: datetime) -> ScheduleState:
    """The schedule after its due runs were asked for."""
    return replace(schedule, next_run_at=schedule.timetable.next_after(now))


def upcoming(times: Timetable, next_run_at: datetime | None) -> list[datetime]:
    """The five times after the next one; none while the schedule is disabled."""
    if next_run_at is None:
        return []
    return list(islice(times.times_after(next_run_at), UPCOMING))


def _changed_times(schedule: ScheduleState, query: UpdateSchedule) -> Timetable:
    """When it runs now. One whose times cannot be worked out any more can still be disabled."""
    if query.cron is None and query.timezone is None and not query.enabled:
        return schedule.timetable
    return timetable(
        schedule.timetable.cron if query.cron is None else query.cron,
        schedule.timetable.timezone if query.timezone is None else query.timezone,
    )


def _due_times(schedule: ScheduleState, first: datetime, now: datetime, count: int) -> tuple[datetime, ...]:
    times = schedule.timetable.latest(first, now, count)
    # What was announced as the next time is due, even if the zone's rules were changed since.
    return times if len(times) == count or first in times else (first, *times)


def _request(schedule: ScheduleState, time: datetime, now: datetime) -> RunRequested:
    # The same due time is the same run, whichever replica asks, and however often.
    key = f"{schedule.id}:{time.astimezone(UTC).isoformat()}"
    return RunRequested(
        event_id=derived_id("run.requested", key),
        occurred_at=now,
        pipeline=schedule.pipeline,
        trigger=f"schedule:{schedule.timetable.cron}",
        dedupe_key=key,
        overlap=schedule.overlap,
        pipeline_id=schedule.pipeline_id,
        asked_by=schedule.id,
    )


def _overlap(missed: Missed, wanted: Overlap | None, otherwise: Overlap) -> Overlap:
    if missed is not Missed.ALL:
        return wanted or otherwise
    if wanted is Overlap.SKIP:
        raise Invalid("overlap: a run for each missed time (missed: all) needs overlap: queue")
    return Overlap.QUEUE
