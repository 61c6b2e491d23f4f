"""Upkeep of the lakehouse: what an operator asks for, and what runners do by themselves, one of them at a time."""

from enum import StrEnum
from uuid import UUID

from pydantic import Field

from contracts.messages import Message, Query
from contracts.names import PipelineName


class CollectedTable(Message):
    """What was collected of one table's files."""

    table: str
    files: int
    bytes: int


class CollectedFiles(Message):
    """What a collection removed, or would."""

    files: int
    bytes: int
    needed_files: int
    """Files that main, a branch or the log of merges needs."""
    young_files: int
    """Files that nothing needs so far, and that are too young to be collected."""
    tables: list[CollectedTable]
    """Those with the most bytes, at most 500."""


class CollectFiles(Query[CollectedFiles], subject="runner.collect_files"):
    """Remove the files of tables that neither main, nor a branch, nor the log of merges needs any more."""

    dry_run: bool = False
    """Only say what would be removed."""
    grace_hours: float = Field(default=48, ge=1, le=876_000)
    """Younger files stay: longer than any run takes, which writes files before anything needs them."""
    history_days: float | None = Field(default=None, ge=1, le=36_500)
    """For how long the entries of the log stay readable; for good, if nothing is said."""


class UpkeepJob(StrEnum):
    """What runners do for the lakehouse by themselves."""

    COLLECT = "collect"
    """Remove the files of tables that nothing needs any more."""
    COMPACT = "compact"
    """Write the many small files of one table anew as few."""


class UpkeepClaimed(Message):
    """Whether the job is the asker's for now."""

    is_granted: bool
    run_under_way: UUID | None = None
    """The run of the table's pipeline that is queued or worked on now."""


class ClaimUpkeep(Query[UpkeepClaimed], subject="catalog.claim_upkeep"):
    """Ask for a job, or to keep it; it is one holder's at a time, and nobody's when its lease ends."""

    job: UpkeepJob
    table: PipelineName | None = None
    """None for a job that is about all tables."""
    holder: str = Field(min_length=1, max_length=100)
    lease_seconds: float = Field(gt=0, le=3600)
    interval_seconds: float = Field(default=0, ge=0)
    """How long ago the job must have been done last."""


class EndUpkeep(Query[None], subject="catalog.end_upkeep"):
    """Give a job back; that it was done counts for the interval of the next claim."""

    job: UpkeepJob
    table: PipelineName | None = None
    holder: str = Field(min_length=1, max_length=100)
    is_done: bool = True
