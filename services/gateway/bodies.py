"""The bodies of requests, where the path says a part of what is asked.

What a field may hold is checked by the query that it goes into. A field that is null counts as not given, but where
it is said that null clears it.
"""

from typing import Any

from pydantic import BaseModel

from contracts.files import Code
from contracts.landing import ZoneBlank
from contracts.messages import Message
from contracts.names import Layer, Name
from contracts.pipelines import PipelineType
from contracts.reports import Severity
from contracts.runs import Overlap
from contracts.schedules import Missed
from contracts.text import Text
from contracts.triggers import TriggerType


class Given(BaseModel):
    """A body of which only what was sent counts."""

    def given(self) -> dict[str, Any]:
        """The fields that were sent, null ones aside."""
        return {name: value for name, value in self if name in self.model_fields_set and value is not None}


class Owned(Given):
    """A body of a change whose `owner` takes the owner away where it is null."""

    owner: str | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were sent; nobody as the owner is an empty name."""
        is_nobodys = "owner" in self.model_fields_set and self.owner is None
        return super().given() | ({"owner": ""} if is_nobodys else {})


class NewNamespace(Given):
    """A namespace to be made."""

    name: Name
    description: str | None = None


class NamespaceChange(Given):
    """What a namespace is to say of itself."""

    description: str


class NewPipeline(Given):
    """A pipeline to be made, with starter files that run as they are."""

    namespace: Name
    layer: Layer
    name: Name
    type: PipelineType | None = None
    description: str | None = None
    owner: str | None = None


class PipelineChange(Owned):
    """What is to change of a pipeline."""

    description: str | None = None
    type: PipelineType | None = None
    max_versions: int | None = None


class Publication(Given):
    """What is said about a version."""

    message: str | None = None


class Rollback(Given):
    """The version to go back to."""

    version: int
    message: str | None = None


class PreviewRequest(Given):
    """What a preview runs, and how much of its result it shows."""

    limit: int | None = None
    sample_files: list[str] | None = None
    code: Code | None = None


class NewTest(Given):
    """A quality test to be made."""

    name: Name
    sql: Code
    severity: Severity | None = None
    description: str | None = None
    tags: list[str] | None = None
    remediation: str | None = None


class NewTrigger(Given):
    """A trigger to be made."""

    type: TriggerType
    config: dict[str, Any]
    enabled: bool | None = None
    cooldown_seconds: int | None = None


class TriggerChange(Given):
    """What is to change of a trigger."""

    config: dict[str, Any] | None = None
    enabled: bool | None = None
    cooldown_seconds: int | None = None


class NewSchedule(Given):
    """A schedule to be made."""

    namespace: Name
    layer: Layer
    pipeline: Name
    cron: str
    timezone: str | None = None
    enabled: bool | None = None
    missed: Missed | None = None
    overlap: Overlap | None = None


class ScheduleChange(Given):
    """What is to change of a schedule."""

    cron: str | None = None
    timezone: str | None = None
    enabled: bool | None = None
    missed: Missed | None = None
    overlap: Overlap | None = None


class NewRun(Given):
    """A run that is wanted."""

    namespace: Name
    layer: Layer
    pipeline: Name
    trigger: str | None = None
    parameters: dict[str, Any] | None = None
    dry_run: bool | None = None
    version: int | None = None


class NewZone(Given):
    """A landing zone to be made."""

    namespace: Name
    name: Name
    description: Text | None = None
    owner: Text | None = None
    expected_schema: Text | None = None
    processed_max_age_days: int | None = None
    auto_purge: bool | None = None


class ZoneChange(Given):
    """What is to change of a landing zone; null clears `owner` and `processed_max_age_days`."""

    description: Text | None = None
    owner: Text | None = None
    expected_schema: Text | None = None
    processed_max_age_days: int | None = None
    auto_purge: bool | None = None

    def cleared(self) -> frozenset[ZoneBlank]:
        """What was sent as null, of what may be cleared."""
        return frozenset(name for name in ZoneBlank if name in self.model_fields_set and getattr(self, name) is None)


class UploadRequest(Given):
    """A file that is to be put straight into the object store."""

    filename: str
    content_type: str | None = None
    size_bytes: int | None = None


class Rejection(Given):
    """Why a file is rejected."""

    reason: str | None = None


class CodeText(Given):
    """The text of a file."""

    content: Code


class TableDescription(Owned):
    """What is said about a table; what is given replaces what was said."""

    description: str | None = None
    column_descriptions: dict[str, str] | None = None


class Statement(Given):
    """A query."""

    sql: str
    namespace: str | None = None
    limit: int | None = None
    branch: str | None = None
    snapshot: str | None = None


class ResultColumn(Message):
    """A column of a result."""

    name: str
    type: str
    """As DuckDB writes it."""


class Result(Message):
    """The rows of a query or a preview.

    Integers beyond 2^53 and decimals are strings; so are times, and blobs in base64.
    """

    columns: list[ResultColumn]
    rows: list[dict[str, Any]]
    total_rows: int
    """The rows that are here."""
    duration_ms: float
    truncated: bool
    """Whether there are more."""
