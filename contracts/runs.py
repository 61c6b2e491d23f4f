"""A run from its request to its end: what is said about it, and what runners and the gateway ask catalog."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from contracts.messages import Event, Message, Query, derived_id
from contracts.names import PipelineName
from contracts.paging import PageRequest
from contracts.text import Number, Text, Values


class RunStatus(StrEnum):
    """The states of a run; the last three are terminal and never change."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED)


class Overlap(StrEnum):
    """What becomes of a request while a run of its pipeline is pending or running."""

    QUEUE = "queue"
    SKIP = "skip"


class RejectionReason(StrEnum):
    """Why a request does not become a run."""

    UNKNOWN_PIPELINE = "unknown_pipeline"
    PIPELINE_REMOVED = "pipeline_removed"
    UNPUBLISHED = "unpublished"
    OVERLAP = "overlap"
    INVALID = "invalid"


class ErrorKind(StrEnum):
    """What kind of failure ended a run (`pipelines.md`, Merge strategies)."""

    COMPILE = "compile"
    SQL = "sql"
    PYTHON = "python"
    SCHEMA = "schema"
    QUALITY = "quality"
    CONFLICT = "conflict"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CANCELLED = "cancelled"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ClaimReason(StrEnum):
    """Why a runner asks for an attempt; catalog counts each."""

    DELIVERY = "delivery"
    CONFLICT = "conflict"
    RETRY = "retry"
    UNAVAILABLE = "unavailable"
    FILES_CHANGED = "files_changed"


class Phase(Message):
    """One phase of an attempt, timed."""

    name: Literal["branch", "compile", "write", "quality", "merge"]
    duration_ms: float
    metadata: dict[str, Any] = {}


class QualityCounts(Message):
    """How many tests judged the branch, and how."""

    total: int = 0
    passed: int = 0
    failed: int = 0
    warned: int = 0
    errored: int = 0


class WrittenTable(Message):
    """A table that a run put on main, and the entry of the log of merges (an opaque string) that it is."""

    table: PipelineName
    snapshot: str


class LogLine(Message):
    """One line of a run's log."""

    timestamp: datetime
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str


def run_id_for(pipeline: str, dedupe_key: str) -> UUID:
    """The id of the run of a request: asking again with the same key is asking for the same run."""
    return derived_id("run", pipeline, dedupe_key)


class RunRequested(Event, subject="run.requested"):
    """Somebody wants a run of a pipeline.

    `pipeline` and `trigger` are enough. The run's id derives from the pipeline and `dedupe_key`, else the event's id:
    asking twice makes one run.
    """

    pipeline: PipelineName
    trigger: Text = Field(min_length=1, max_length=300, examples=["event:billing"])
    """The label of what asked: `manual`, `schedule:<cron>`, `trigger:lz_upload:<ns>/<zone>`, `event:<source>` …"""
    dedupe_key: Text | None = Field(default=None, max_length=300)
    parameters: Values = {}
    """What `var()` reads in the pipeline."""
    overlap: Overlap = Overlap.QUEUE
    dry_run: bool = False
    version: Number | None = None
    """A published version to run; the newest one if not given."""
    pipeline_id: UUID | None = None
    """The pipeline that was meant when the schedule or trigger was made: another one of its name is not run."""
    asked_by: UUID | None = None
    """The schedule or trigger that asks, to be told of a rejection."""


class RunRejected(Event, subject="run.rejected"):
    """A request does not become a run, and why."""

    run_id: UUID
    """The id that the run would have had."""
    pipeline: str
    trigger: str
    reason: RejectionReason
    message: str
    asked_by: UUID | None = None
    pipeline_id: UUID | None = None


class RunQueued(Event, subject="run.queued"):
    """A run is recorded, its code is pinned, it may start. Said again, with a new event id, if its runner is lost."""

    run_id: UUID
    pipeline: PipelineName
    pipeline_id: UUID
    trigger: str
    queue_number: int = 1
    """How often this run was said to be queued; claims under an older number are over."""


class RunStarted(Event, subject="run.started", outside="subscribers and the event stream of the API"):
    """A runner has the run: its attempt of this number begins."""

    run_id: UUID
    pipeline: PipelineName
    attempt: int
    trigger: str
    started_at: datetime


class RunProgressed(Event, subject="run.progressed"):
    """A phase of an attempt is done, or, without a phase, the attempt is alive."""

    run_id: UUID
    attempt: int
    phase: Phase | None = None


class AttemptFinished(Event, subject="attempt.finished"):
    """How the last attempt of a run ended; catalog ends the run by it."""

    run_id: UUID
    attempt: int
    """The attempt that speaks: for a success the one that merged, for any other end the newest one."""
    status: RunStatus
    error: str | None = None
    error_kind: ErrorKind | None = None
    branch: str | None = None
    rows_written: int = 0
    phases: list[Phase] = []
    quality: QualityCounts = QualityCounts()
    files_read: int = 0
    tables: list[WrittenTable] = []
    merged_at: datetime | None = None
    report_key: str | None = None
    """The S3 key of the attempt's whole report, as JSON."""
    report: str | None = None
    """What lies there, where it is small enough for a message."""
    logs_key: str | None = None
    """The S3 key of the attempt's whole log, as JSON Lines."""
    last_log_lines: list[LogLine] = []


class RunFinished(Event, subject="run.finished"):
    """A run has its one terminal state."""

    run_id: UUID
    pipeline: PipelineName
    pipeline_id: UUID
    version: int | None = None
    trigger: str
    status: RunStatus
    attempt: int
    """The attempt that decided; 0 for a run that no runner ever had."""
    started_at: datetime | None = None
    finished_at: datetime
    duration_ms: int | None = None
    rows_written: int = 0
    phases: list[Phase] = []
    quality: QualityCounts = QualityCounts()
    files_read: int = 0
    tables: list[WrittenTable] = []
    dry_run: bool = False
    error: str | None = None
    error_kind: ErrorKind | None = None
    report_key: str | None = None


class RunCancel(Event, subject="run.cancel", stored=False):
    """This run is no longer wanted; said every second to all runners until it ends."""

    run_id: UUID


class LogWritten(Event, subject="log.run.*", outside="who follows a log through the API"):
    """One log line of a run, as it happens; the subject ends in the run's id."""

    run_id: UUID
    attempt: int
    line: LogLine

    def address(self) -> str:
        """The subject of this run's log."""
        return f"log.run.{self.run_id}"


class RunAccepted(Message):
    """A request was recorded as this run."""

    run_id: UUID
    status: RunStatus


class RequestRun(Query[RunAccepted], subject="catalog.request_run"):
    """Record a run of a pipeline, as `run.requested` does, and answer when it is recorded.

    NotFound for an unknown pipeline, Conflict for an idempotency key that was used with another body.
    """

    request: RunRequested
    idempotency_key: Text | None = None


class PinnedFile(Message):
    """A file of a pipeline at the version that a run reads."""

    path: str
    """Below the pipeline's folder: `pipeline.sql`, `tests/quality/…`."""
    version_id: str


class Attempt(Message):
    """What a runner needs to know to work on an attempt."""

    verdict: Literal["attempt"] = "attempt"
    run_id: UUID
    attempt: int
    pipeline: PipelineName
    pipeline_id: UUID
    version: int | None
    trigger: str
    files: list[PinnedFile]
    parameters: dict[str, Any]
    dry_run: bool
    head: str
    """Main's head as it was noted for attempt 1: what lies before it cannot be of this run."""
    retries: int = 0
    """How many attempts of this run were asked for as `retry`."""
    conflicts: int = 0
    """How many attempts of this run were asked for as `conflict`."""
    file_changes: int = 0
    """How many attempts of this run were asked for as `files_changed`."""


class EndRun(Message):
    """No attempt is given any more: close the run's branches, look on main, and say how it ended."""

    verdict: Literal["end"] = "end"
    run_id: UUID
    attempt: int
    """The newest number, under which the end is said; 0 if no attempt was ever given."""
    pipeline: PipelineName
    pipeline_id: UUID
    dry_run: bool
    head: str
    status: RunStatus
    error: str
    error_kind: ErrorKind


class Over(Message):
    """The run has ended, or was queued anew since: acknowledge and forget."""

    verdict: Literal["over"] = "over"


class Superseded(Message):
    """Another attempt is the newest: stop without a word, and acknowledge nothing."""

    verdict: Literal["superseded"] = "superseded"


class Claimed(Message):
    """The answer to a claim."""

    claim: Attempt | EndRun | Over | Superseded = Field(discriminator="verdict")


class ClaimRun(Query[Claimed], subject="catalog.claim_run"):
    """Ask for the next attempt of a run; asking again with the same claim gets the same answer."""

    run_id: UUID
    queue_number: int
    """Of the `run.queued` that the runner holds."""
    delivery: str
    """What makes this claim one: the runner's own id for this delivery and attempt."""
    reason: ClaimReason
    follows: int | None = None
    """The attempt after which this one is asked for; not given for a delivery."""
    head: str
    """Main's head as the runner sees it now; noted if this becomes attempt 1."""


class AttemptState(Message):
    """Whether an attempt may go on."""

    is_newest: bool
    is_wanted: bool


class CheckAttempt(Query[AttemptState], subject="catalog.check_attempt"):
    """Ask whether an attempt is still its run's newest, and the run still wanted."""

    run_id: UUID
    attempt: int


class RunOutcome(Message):
    """What has become of a requested run."""

    status: RunStatus | None
    """None if it was rejected, or is not known (`is_known`)."""
    is_known: bool
    is_rejected: bool = False
    dry_run: bool = False
    pipeline_id: UUID | None = None


class FindRunOutcome(Query[RunOutcome], subject="catalog.find_run_outcome"):
    """Ask how a run ended, long after it, too: for those who may have missed its event."""

    run_id: UUID


class QualityOfRun(Message):
    """How one quality test judged a run."""

    name: str
    status: str
    severity: str
    value: int | None
    expected: int = 0
    duration_ms: float
    sample_rows: list[dict[str, Any]] = []
    """Up to 20 violations; none where all of them together do not fit into a message, which the report holds."""
    message: str | None = None
    compiled_sql: str | None = None


class Run(Message):
    """A run as the API shows it."""

    id: UUID
    pipeline_id: UUID
    namespace: str
    layer: str
    pipeline: str
    version: int | None
    status: RunStatus
    trigger: str
    attempt: int
    branch: str | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    rows_written: int
    error: str | None
    error_kind: ErrorKind | None
    phase_profiles: list[Phase]
    quality: list[QualityOfRun]
    """Filled for one run, empty in lists."""
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    changes: list[dict[str, Any]] = []
    """What a dry run would have changed on main, table by table: `TableChanges` of the report.

    Of columns the first 200 where the run would not fit into a message; the report has all.
    """
    parameters: dict[str, Any]
    dry_run: bool
    logs_s3_path: str | None
    created_at: datetime


class Runs(Message):
    """A page of runs."""

    runs: list[Run]
    total: int
    next_cursor: str | None = None


class ListRuns(Query[Runs], PageRequest, subject="catalog.list_runs"):
    """List runs, the newest first unless `sort` says otherwise."""

    namespace: Text | None = None
    layer: Text | None = None
    pipeline: Text | None = None
    status: RunStatus | None = None
    trigger: Text | None = None
    """The start of the trigger's label."""
    started_after: datetime | None = None
    started_before: datetime | None = None
    sort: Literal["created_at", "-created_at", "started_at", "-started_at", "duration_ms", "-duration_ms"] = (
        "-created_at"
    )


class FindRun(Query[Run], subject="catalog.find_run"):
    """Show one run; NotFound if there is none of that id."""

    run_id: UUID


class CancelRun(Query[RunAccepted], subject="catalog.cancel_run"):
    """Ask for the end of a run; NotFound, or Conflict when it has ended."""

    run_id: UUID


class RetryRun(Query[RunAccepted], subject="catalog.retry_run"):
    """Ask for a new run of the version and with the parameters of one that has ended.

    NotFound if there is no such run or its version is not kept, Conflict while it has not ended, or for an idempotency
    key that was used for something else. One that ran a draft is repeated with the files of then, whatever was
    published since.
    """

    run_id: UUID
    idempotency_key: Text | None = None
    """The same key is the same new run, however often it is asked for."""


class RunLogs(Message):
    """Where the log of a run is."""

    status: RunStatus
    url: str | None
    """A presigned address of the whole log as JSON Lines; none while the run goes on."""
    last_lines: list[LogLine]


class AddressRunLogs(Query[RunLogs], subject="catalog.address_run_logs"):
    """Ask where the log of a run can be read; NotFound if there is no such run."""

    run_id: UUID
