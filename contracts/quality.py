"""Quality tests: queries that return violations, one file each under `tests/quality/` of a pipeline."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from contracts.files import Code
from contracts.messages import Message, Query
from contracts.names import Name, PipelineName
from contracts.paging import PageRequest
from contracts.reports import Severity
from contracts.text import Text


class QualityTest(Message):
    """A test of a pipeline's draft, as the API shows it."""

    name: str
    sql: str
    """The whole file, its header included."""
    severity: Severity
    description: str
    tags: list[str]
    remediation: str
    published: bool
    """Whether the published version has a test of this name."""
    error: str | None = None
    """Why its file cannot be shown, as it is no text: then `sql` is empty, and nothing is known of its header."""


class QualityTests(Message):
    """A page of tests. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    tests: list[QualityTest]
    total: int
    next_cursor: str | None = None


class ListQualityTests(Query[QualityTests], PageRequest, subject="catalog.list_quality_tests"):
    """List the tests of a pipeline's draft by name; NotFound if there is no such pipeline."""

    pipeline: PipelineName


class QualityTestCreated(Message):
    """A test that was made, and the path of its file."""

    name: str
    severity: Severity
    path: str


class CreateQualityTest(Query[QualityTestCreated], subject="catalog.create_quality_test"):
    """Write the file of a new test: its header from the fields that are given, then the SQL.

    NotFound if there is no such pipeline, AlreadyExists if it has a test of that name.
    """

    pipeline: PipelineName
    name: Name
    sql: Code = Field(min_length=1)
    severity: Severity | None = None
    description: Text | None = Field(default=None, max_length=2000)
    tags: list[Annotated[Text, Field(max_length=100)]] | None = Field(default=None, max_length=50)
    remediation: Text | None = Field(default=None, max_length=2000)


class DeleteQualityTest(Query[None], subject="catalog.delete_quality_test"):
    """Delete the file of a test; results that were recorded stay. NotFound if there is no such test."""

    pipeline: PipelineName
    name: Text = Field(max_length=200)


class RecordedResult(Message):
    """How a test judged a run."""

    run_id: UUID
    status: str
    """`passed`, `failed`, `warned` or `error`."""
    severity: Severity
    value: int | None
    """How many violations; None if the test itself failed to run."""
    expected: int = 0
    duration_ms: float
    sample_rows: list[dict[str, Any]]
    message: str | None
    compiled_sql: str | None
    ran_at: datetime


class RecordedResults(Message):
    """A page of results. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    results: list[RecordedResult]
    total: int
    next_cursor: str | None = None


class ListQualityResults(Query[RecordedResults], PageRequest, subject="catalog.list_quality_results"):
    """List how a test judged the runs of its pipeline, the newest first; a test that was deleted is still told of.

    NotFound if there is no such pipeline, or it never had a test of that name.
    """

    pipeline: PipelineName
    name: Text = Field(max_length=200)
