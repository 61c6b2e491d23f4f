"""Schedules: what is asked about them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from pydantic import Field

from contracts.messages import Message, Query
from contracts.names import Layer, Name
from contracts.paging import PageRequest
from contracts.runs import Overlap

MAX_CRON_LENGTH = 200


class Missed(StrEnum):
    """What becomes of due times that passed while no scheduler ran."""

    LATEST = "latest"
    """One run, for the latest of them."""
    ALL = "all"
    """A run for each, up to 100; implies `overlap: queue`."""
    NONE = "none"


class Schedule(Message):
    """A schedule as the API shows it."""

    id: UUID
    pipeline_id: UUID
    cron: str
    timezone: str
    enabled: bool
    missed: Missed
    overlap: Overlap
    last_run_id: UUID | None
    """The last of its runs that was recorded and has ended."""
    last_run_at: datetime | None
    next_run_at: datetime | None
    """None while it is disabled."""
    upcoming: list[datetime]
    """The five times after the next one."""
    problem: str | None = None
    """Why it asks for no runs when it is due: its time zone is not known any more."""
    created_at: datetime
    updated_at: datetime


class Schedules(Message):
    """A page of schedules."""

    schedules: list[Schedule]
    total: int
    next_cursor: str | None = None


class CreateSchedule(Query[Schedule], subject="scheduler.create_schedule"):
    """Run a pipeline by the clock.

    Invalid for a cron expression or time zone that cannot be understood, NotFound if there is no such pipeline.
    """

    id: UUID = Field(default_factory=uuid4)
    """The new schedule's id: asking twice makes one."""
    namespace: Name
    layer: Layer
    pipeline: Name
    cron: str = Field(max_length=MAX_CRON_LENGTH, examples=["0 6 * * 1-5", "@hourly"])
    """Five fields, or `@hourly` and the like."""
    timezone: str = Field(default="UTC", max_length=100, examples=["Europe/Berlin"])
    """An IANA name."""
    enabled: bool = True
    missed: Missed = Missed.LATEST
    overlap: Overlap | None = None
    """`skip` if not given, `queue` where `missed` is `all`."""


class ListSchedules(Query[Schedules], PageRequest, subject="scheduler.list_schedules"):
    """List schedules, the oldest first."""


class FindSchedule(Query[Schedule], subject="scheduler.find_schedule"):
    """Show one schedule; NotFound if there is none of that id."""

    schedule_id: UUID


class UpdateSchedule(Query[Schedule], subject="scheduler.update_schedule"):
    """Change what is given and leave the rest."""

    schedule_id: UUID
    cron: str | None = Field(default=None, max_length=MAX_CRON_LENGTH)
    timezone: str | None = Field(default=None, max_length=100)
    enabled: bool | None = None
    missed: Missed | None = None
    overlap: Overlap | None = None


class DeleteSchedule(Query[None], subject="scheduler.delete_schedule"):
    """Remove a schedule; NotFound if there is none of that id."""

    schedule_id: UUID
