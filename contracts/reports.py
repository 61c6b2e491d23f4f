"""The whole report of an attempt, as it lies in S3 under `{ns}/runs/{run_id}/{attempt}.json`."""

from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from contracts.messages import Message
from contracts.names import PipelineName
from contracts.runs import ErrorKind, Phase, RunStatus


class Severity(StrEnum):
    """What a failing test does: an error blocks the merge, a warning is recorded."""

    ERROR = "error"
    WARN = "warn"


class QualityResult(Message):
    """How one quality test judged one run's branch."""

    name: str
    """The file's name without `.sql`."""
    status: Literal["passed", "failed", "warned", "error"]
    severity: Severity = Severity.ERROR
    value: int | None = None
    """How many violations; None if the test itself failed to run."""
    expected: int = 0
    duration_ms: float = 0
    sample_rows: list[dict[str, Any]] = []
    """Up to 20 violations."""
    description: str | None = None
    compiled_sql: str | None = None
    message: str | None = None
    """Why the test itself failed to run."""


class Input(Message):
    """Something that a run read."""

    type: Literal["table", "landing_zone"]
    name: str
    """`ns.layer.name` of a table, `ns/zone` of a landing zone."""
    snapshot: str | None = None
    files: int | None = None
    sample_files: list[str] = []
    """The first names of the files, for a look."""


class Output(Message):
    """A table that a run wrote."""

    table: PipelineName
    rows: int


class ColumnChange(Message):
    """A column that the run makes, takes away, or gives another type."""

    column: str
    change: Literal["added", "removed", "type_changed"]
    before: str | None = None
    """The type as DuckDB writes it; None for a column that is added."""
    after: str | None = None
    """None for a column that is removed."""


class TableChanges(Message):
    """What a dry run would change of a table on main.

    Rows are compared as a whole. With a `unique_key`, a row that goes and one of its key that comes are a changed
    row; without one, nothing tells which rows belong together, and they count as removed and added.
    """

    table: PipelineName
    is_new: bool
    """Whether main has no such table yet."""
    rows_added: int
    rows_removed: int
    rows_changed: int
    schema_changes: list[ColumnChange] = []


class AttemptReport(Message):
    """Everything that an attempt did; snapshot ids and times come from the log of merges."""

    run_id: UUID
    attempt: int
    pipeline: PipelineName
    status: RunStatus
    error: str | None = None
    error_kind: ErrorKind | None = None
    branch: str | None = None
    rows_written: int = 0
    files_read: int = 0
    phases: list[Phase] = []
    quality: list[QualityResult] = []
    inputs: list[Input] = []
    outputs: list[Output] = []
    changes: list[TableChanges] = []
    """What a dry run would have changed on main; empty for a run that merges."""
    logs_key: str | None = None
