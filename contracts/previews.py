"""Looks at a pipeline's code without a run: what it would give, and how its tests judge main. Nothing is written."""

from typing import Any, Final, Literal

from pydantic import Field

from contracts.files import Code
from contracts.messages import Inbox, Message, Query
from contracts.names import PipelineName
from contracts.reports import QualityResult
from contracts.runs import ErrorKind, LogLine
from contracts.text import Text

MAX_PREVIEW_ROWS: Final = 1000


class PreviewColumn(Message):
    """A column of the result."""

    name: str
    type: str
    """As DuckDB writes it."""


class PreviewPhase(Message):
    """A part of a preview, timed."""

    name: Literal["compile", "query", "count", "plan"]
    duration_ms: float
    metadata: dict[str, Any] = {}


class Preview(Message):
    """What a pipeline's code gives, or why it gives nothing."""

    columns: list[PreviewColumn] = []
    rows: list[dict[str, Any]] = []
    """The first rows. Integers beyond 2^53 and decimals are strings; so are times, and blobs in hex."""
    total_row_count: int | None = None
    """Rows of the whole result; None if there was no time to count them."""
    phases: list[PreviewPhase] = []
    explain_output: str = ""
    """DuckDB's plan."""
    memory_peak_bytes: int = 0
    """What the process needed at the most, its own programs included."""
    logs: list[LogLine] = []
    warnings: list[str] = []
    error: str | None = None
    error_kind: ErrorKind | None = None


class Sent(Message):
    """An answer was sent to the asker's inbox."""

    bytes: int


class PreviewPipeline(Query[Sent], subject="runner.preview"):
    """Run a pipeline's draft, or code sent along, over the samples of its zones where there are any.

    A `Preview` as JSON goes to the asker's inbox in chunks, before the answer; what is wrong with the code is in it.
    NotFound if there is no such pipeline, Invalid for a sample that no zone of the pipeline has, Exhausted when too
    many look already.
    """

    pipeline: PipelineName
    limit: int = Field(default=100, ge=1, le=MAX_PREVIEW_ROWS)
    sample_files: list[Text] | None = Field(default=None, max_length=200)
    """Names of samples to read; all samples when not given."""
    code: Code | None = None
    """In place of what the draft has as its main file."""
    inbox: Inbox
    """The subject that the asker listens on for chunks."""


class Verdicts(Message):
    """How tests judge what is on main."""

    results: list[QualityResult] = []
    passed: int = 0
    failed: int = 0
    """Those of error severity that found something."""
    warned: int = 0
    errored: int = 0
    """Those that could not run."""
    total: int = 0
    error: str | None = None
    """Why none could run."""
    error_kind: ErrorKind | None = None


class RunTests(Query[Sent], subject="runner.run_tests"):
    """Run the quality tests of a pipeline's draft on what main holds now; nothing is recorded.

    `Verdicts` as JSON go to the asker's inbox in chunks, before the answer. NotFound if there is no such pipeline,
    Exhausted when too many look already.
    """

    pipeline: PipelineName
    inbox: Inbox
    """The subject that the asker listens on for chunks."""
