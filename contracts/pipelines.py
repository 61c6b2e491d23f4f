"""Namespaces and pipelines: their lifecycle, and what is asked about them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from contracts.messages import Event, Message, Query
from contracts.names import Layer, Name, PipelineName
from contracts.paging import PageRequest
from contracts.reports import Severity
from contracts.runs import PinnedFile
from contracts.text import Number, Text


def _version_or_draft(value: Any) -> Any:
    # Of a union pydantic tells what each of its parts has against it.
    if isinstance(value, str) and value != "draft" and not value.isdecimal():
        raise ValueError(f"{value!r} is neither the number of a version nor 'draft'")
    return value


class ZoneReference(Message):
    """A landing zone that a pipeline reads."""

    namespace: str
    zone: str
    only_new: bool = False


class PipelinePublished(Event, subject="pipeline.published"):
    """A version of a pipeline's code was published."""

    pipeline: PipelineName
    pipeline_id: UUID
    version: int
    message: str | None = None
    reads_tables: list[PipelineName] = []
    reads_zones: list[ZoneReference] = []
    archives_files: bool = False
    """Whether it asks for the files that it read to be moved to `_processed/`."""


class PipelineEdited(Event, subject="pipeline.edited", outside="subscribers that follow drafts"):
    """A file of a pipeline's draft was written or removed."""

    pipeline: PipelineName
    pipeline_id: UUID
    path: str
    draft_dirty: bool


class PipelineRemoved(Event, subject="pipeline.removed"):
    """A pipeline was deleted; its tables stay."""

    pipeline: PipelineName
    pipeline_id: UUID


class NamespaceRemoved(Event, subject="namespace.removed"):
    """A namespace was deleted with what it held; its tables stay."""

    namespace: str
    namespace_id: UUID | None = None
    """Which one of that name."""


class FileProblem(Message):
    """Something wrong with a line of an author's file."""

    line: int | None = None
    column: int | None = None
    message: str


class CheckedFile(Message):
    """What was found in one file of a pipeline."""

    path: str
    valid: bool
    errors: list[FileProblem] = []
    warnings: list[FileProblem] = []


class CheckedTest(Message):
    """A quality test, as its header says."""

    name: str
    path: str
    severity: Severity = Severity.ERROR
    description: str = ""
    tags: list[str] = []
    remediation: str = ""


class FoundReference(Message):
    """A table or a landing zone where a file of a pipeline first names it."""

    type: Literal["table", "landing_zone"]
    name: str
    """`namespace.layer.name` of a table, `namespace/name` of a zone."""
    path: str
    line: int | None = None
    column: int | None = None


class Validation(Message):
    """What the files of a pipeline say, and what is wrong with them."""

    valid: bool
    files: list[CheckedFile]
    reads_tables: list[PipelineName] = []
    reads_zones: list[ZoneReference] = []
    references: list[FoundReference] = []
    """Of all files; `reads_tables` and `reads_zones` are those of the pipeline itself."""
    archives_files: bool = False
    description: str | None = None
    tests: list[CheckedTest] = []
    query_sql: str | None = None
    """The query of a later run, its tables and zones under their whole names; None for Python, or if it is too long."""


class ValidatePipeline(Query[Validation], subject="runner.validate"):
    """Check every file of a pipeline as a run would read it: settings, Jinja, SQL, tests."""

    pipeline: PipelineName
    files: list[PinnedFile]


class PipelineType(StrEnum):
    """The language that a pipeline is written in."""

    SQL = "sql"
    PYTHON = "python"


class Pipeline(Message):
    """A pipeline as the API shows it."""

    id: UUID
    namespace: str
    layer: str
    name: str
    type: PipelineType
    s3_path: str
    """The S3 prefix of its code, with a slash at its end."""
    description: str
    owner: str | None
    published_at: datetime | None
    published_versions: dict[str, str]
    """Path below the pipeline's folder → S3 version id, of the published version; empty while there is none."""
    version: int | None
    """The number of the published version."""
    draft_dirty: bool
    """Whether the draft differs from what is published: true as long as nothing is."""
    max_versions: int
    created_at: datetime
    updated_at: datetime


class Pipelines(Message):
    """A page of pipelines. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    pipelines: list[Pipeline]
    total: int
    next_cursor: str | None = None


class ListPipelines(Query[Pipelines], PageRequest, subject="catalog.list_pipelines"):
    """List pipelines, by name unless `sort` says otherwise."""

    namespace: Name | None = None
    layer: Layer | None = None
    search: Text | None = Field(default=None, max_length=200)
    """A part of the name or of the description, in any case."""
    sort: Literal[
        "name", "-name", "created_at", "-created_at", "updated_at", "-updated_at", "published_at", "-published_at"
    ] = "name"


class FindPipeline(Query[Pipeline], subject="catalog.find_pipeline"):
    """Show a pipeline; NotFound if there is none of that name."""

    pipeline: PipelineName


class PipelineCreated(Message):
    """A pipeline that was made, and the starter files in its folder."""

    namespace: str
    layer: str
    name: str
    s3_path: str
    files_created: list[str]


class CreatePipeline(Query[PipelineCreated], subject="catalog.create_pipeline"):
    """Make a pipeline with files that run as they are.

    NotFound for an unknown namespace, AlreadyExists for a name that is taken.
    """

    namespace: Name
    layer: Layer
    name: Name
    type: PipelineType = PipelineType.SQL
    description: Text = Field(default="", max_length=2000)
    owner: Text | None = Field(default=None, max_length=200)


class UpdatePipeline(Query[Pipeline], subject="catalog.update_pipeline"):
    """Change what is given of a pipeline, and leave the rest; NotFound if there is none of that name."""

    pipeline: PipelineName
    description: Text | None = Field(default=None, max_length=2000)
    owner: Text | None = Field(default=None, max_length=200)
    """Empty for nobody."""
    type: PipelineType | None = None
    max_versions: int | None = Field(default=None, ge=1, le=1000)


class DeletePipeline(Query[None], subject="catalog.delete_pipeline"):
    """Delete a pipeline and cancel its runs; its tables stay. NotFound if there is none of that name."""

    pipeline: PipelineName


class PublishedFiles(Message):
    """What publishing found in each file."""

    valid: bool
    files: list[CheckedFile]


class Published(Message):
    """A version that was published."""

    status: Literal["published"] = "published"
    version: int
    message: str | None
    versions: dict[str, str]
    """Path below the pipeline's folder → S3 version id."""
    validation: PublishedFiles
    """Valid, with whatever warnings there are."""


class PublishPipeline(Query[Published], subject="catalog.publish_pipeline"):
    """Check the draft of a pipeline, and make it the version that schedules and triggers run.

    NotFound if there is none of that name; Unprocessable with `validation` (a `PublishedFiles`) if a file has errors.
    """

    pipeline: PipelineName
    message: Text | None = Field(default=None, max_length=2000)


class PipelineVersion(Message):
    """A published version of a pipeline; it never changes."""

    id: UUID
    pipeline_id: UUID
    version_number: int
    message: str | None
    published_versions: dict[str, str]
    created_at: datetime


class PipelineVersions(Message):
    """A page of versions. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    versions: list[PipelineVersion]
    total: int
    next_cursor: str | None = None


class ListVersions(Query[PipelineVersions], PageRequest, subject="catalog.list_versions"):
    """List the versions of a pipeline that are kept, the newest first."""

    pipeline: PipelineName


class FindVersion(Query[PipelineVersion], subject="catalog.find_version"):
    """Show a version of a pipeline; NotFound if there is none of that number, or it is not kept any more."""

    pipeline: PipelineName
    version: Number = Field(ge=1, le=2**31 - 1)


class RolledBack(Message):
    """A new version that is what an older one was."""

    status: Literal["rolled_back"] = "rolled_back"
    from_version: int
    """The version whose files it has."""
    new_version: int
    message: str | None


class RollBackPipeline(Query[RolledBack], subject="catalog.roll_back_pipeline"):
    """Make a new version of the files of an older one; the draft stays as it is.

    NotFound if there is no such pipeline, or the version is not kept; Conflict if what it reads would close a cycle
    with what is published by now.
    """

    pipeline: PipelineName
    version: Number = Field(ge=1, le=2**31 - 1)
    message: Text | None = Field(default=None, max_length=2000)


class FileDiff(Message):
    """What differs in one file."""

    path: str
    change: Literal["added", "removed", "changed"]
    diff: str
    """A unified diff, shortened where a message does not hold it."""
    is_whole: bool = True
    """Whether it was not shortened."""


class VersionDiff(Message):
    """A page of the files that differ. It may hold fewer than were asked for."""

    version: int
    against: int | Literal["draft"]
    files: list[FileDiff]
    """Only those that differ, by path."""
    total: int
    next_cursor: str | None = None


class CompareVersion(Query[VersionDiff], PageRequest, subject="catalog.compare_version"):
    """Say what differs, file by file, from a version to another one or to the draft.

    NotFound if there is no such pipeline, or one of the versions is not kept.
    """

    pipeline: PipelineName
    version: Number = Field(ge=1, le=2**31 - 1)
    against: Annotated[
        Annotated[Number, Field(ge=1, le=2**31 - 1)] | Literal["draft"], BeforeValidator(_version_or_draft)
    ] = "draft"


class DraftPins(Message):
    """The files of a draft at their versions."""

    pipeline_id: UUID
    files: list[PinnedFile]


class PinDraft(Query[DraftPins], subject="catalog.pin_draft"):
    """Ask for the files of a pipeline's draft as they are now; NotFound if there is none of that name."""

    pipeline: PipelineName
