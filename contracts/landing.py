"""Files in landing zones: what is said about them, and which of them a run reads."""

from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from contracts.messages import Event, Message, Query
from contracts.names import PipelineName


class BucketChanged(Event, subject="bucket.events"):
    """The object store's notification: objects were put into or removed from the bucket.

    Its shape is the S3 notification as MinIO sends it.
    """

    model_config = ConfigDict(populate_by_name=True)

    event_name: str = Field(alias="EventName")
    key: str = Field(alias="Key")
    records: list[dict[str, Any]] = Field(alias="Records")


class FileLanded(Event, subject="file.landed"):
    """A file is complete in a zone."""

    namespace: str
    zone: str
    zone_id: UUID
    file_id: UUID
    filename: str
    """Everything after the zone, slashes included."""
    key: str
    size_bytes: int
    etag: str
    version_id: str


class ProcessedZone(Message):
    """How many files of a zone a run read, and how many of them were archived."""

    namespace: str
    zone: str
    files: int
    archived: int


class FileProcessed(Event, subject="file.processed"):
    """These files were read by this run, and archived where asked."""

    run_id: UUID
    pipeline: PipelineName
    pipeline_id: UUID
    zones: list[ProcessedZone]


class ZoneForm(StrEnum):
    """Which files of a zone a pipeline asks for."""

    ALL = "all"
    NEW = "new"


class ClaimedFile(Message):
    """A file that a run reads, at the version that was claimed."""

    file_id: UUID
    filename: str
    key: str
    version_id: str
    size_bytes: int


class ClaimedFiles(Message):
    """One page of the files of a run.

    `ready`: these are they. `not_yet`: an earlier run of the pipeline is unsettled, ask again. `over`: this run is
    settled, stop.
    """

    state: Literal["ready", "not_yet", "over"]
    files: list[ClaimedFile] = []
    next_cursor: str | None = None
    """To be sent with the next question; none after the last page."""
    expected_schema: str = ""
    """The zone's DDL columns, for reading an empty list."""
    last_file: ClaimedFile | None = None
    """The last file that the zone held, whose columns stand for an empty list without a schema."""


class ClaimFiles(Query[ClaimedFiles], subject="ingest.claim_files"):
    """Ask which files of a zone a run reads: fixed when first asked, the same for every attempt.

    NotFound if there is no such zone.
    """

    run_id: UUID
    pipeline: PipelineName
    pipeline_id: UUID
    namespace: str
    zone: str
    form: ZoneForm
    cursor: str | None = None


class FilesChecked(Message):
    """Whether what a run read is still what the zone holds under these names."""

    state: Literal["unchanged", "changed", "over"]
    changed: list[str] = []
    """The first of the keys that changed; their claims now are what the zone holds."""


class CheckFiles(Query[FilesChecked], subject="ingest.check_files"):
    """Ask, after writing, whether the files of a run are still the versions that it claimed."""

    run_id: UUID
