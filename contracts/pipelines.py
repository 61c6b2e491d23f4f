"""Namespaces and pipelines: their lifecycle, and what is asked about them."""

from uuid import UUID

from contracts.messages import Event, Message, Query
from contracts.names import PipelineName
from contracts.reports import Severity
from contracts.runs import PinnedFile


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


class FileProblem(Message):
    """Something wrong with a line of an author's file."""

    line: int | None = None
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


class Validation(Message):
    """What the files of a pipeline say, and what is wrong with them."""

    valid: bool
    files: list[CheckedFile]
    reads_tables: list[PipelineName] = []
    reads_zones: list[ZoneReference] = []
    archives_files: bool = False
    description: str | None = None
    tests: list[CheckedTest] = []


class ValidatePipeline(Query[Validation], subject="runner.validate"):
    """Check every file of a pipeline as a run would read it: settings, Jinja, SQL, tests."""

    pipeline: PipelineName
    files: list[PinnedFile]
