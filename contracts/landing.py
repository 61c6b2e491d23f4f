"""Files in landing zones: what is said about them, and which of them a run reads."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field

from contracts.messages import Event, Message, Query
from contracts.names import Name, PipelineName
from contracts.paging import PageRequest
from contracts.text import Text


def _within_a_century(days: int) -> int:
    if days > _CENTURY:
        raise ValueError(f"{days} days are more than a hundred years")
    return days


_CENTURY: Final = 36_525

Days = Annotated[int, Field(ge=1), AfterValidator(_within_a_century)]
"""A time in days, a hundred years at the most."""


class BucketChanged(Event, subject="bucket.events", outside="the object store"):
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


class FileProcessed(Event, subject="file.processed", outside="subscribers and the event stream of the API"):
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
    attempt: int = 0
    """The attempt that asks: once a newer one has asked, an older one is told that it is over."""
    pipeline: PipelineName
    pipeline_id: UUID
    namespace: Text
    zone: Text
    form: ZoneForm
    cursor: str | None = None


class FilesChecked(Message):
    """Whether what a run read is still what the zone holds under these names."""

    state: Literal["unchanged", "changed", "over"]
    changed: list[str] = []
    """The first of the keys that changed; their claims now are what the zone holds."""


class CheckFiles(Query[FilesChecked], subject="ingest.check_files"):
    """Ask, after writing or when reading failed, whether the files of a run are still the versions that it claimed.

    Asking again in the same attempt gets the same answer: what changed for it stays changed.
    """

    run_id: UUID
    attempt: int = 0
    """The attempt that asks: what an older attempt finds must not move what a newer one has read."""


class Zone(Message):
    """A landing zone as the API shows it."""

    id: UUID
    namespace: str
    name: str
    description: str
    owner: str | None
    expected_schema: str
    """DDL columns (`id bigint not null, name varchar`), or empty."""
    processed_max_age_days: int | None
    auto_purge: bool
    file_count: int
    """Of the files that `landing_zone()` gives."""
    total_bytes: int
    created_at: datetime
    updated_at: datetime


class Zones(Message):
    """A page of zones."""

    zones: list[Zone]
    total: int
    next_cursor: str | None = None


class ListZones(Query[Zones], PageRequest, subject="ingest.list_zones"):
    """List landing zones by namespace and name."""

    namespace: Text | None = None


class CreateZone(Query[Zone], subject="ingest.create_zone"):
    """Make a zone; what already lies under its prefix lands.

    NotFound for an unknown namespace, AlreadyExists for a name that is taken.
    """

    namespace: Name
    name: Name
    description: Text = ""
    owner: Text | None = None
    expected_schema: Text = ""
    processed_max_age_days: Days | None = None
    """Days after which archived files are deleted, where `auto_purge` is on."""
    auto_purge: bool = False


class FindZone(Query[Zone], subject="ingest.find_zone"):
    """Show one zone; NotFound if there is none of that name."""

    namespace: Text
    name: Text


class ZoneBlank(StrEnum):
    """What a zone need not say."""

    OWNER = "owner"
    PROCESSED_MAX_AGE_DAYS = "processed_max_age_days"


class ChangeZone(Query[Zone], subject="ingest.change_zone"):
    """Change what is said about a zone; what is not given stays as it is. NotFound if there is none of that name."""

    namespace: Text
    name: Text
    description: Text | None = None
    owner: Text | None = None
    expected_schema: Text | None = None
    processed_max_age_days: Days | None = None
    auto_purge: bool | None = None
    cleared: frozenset[ZoneBlank] = frozenset()
    """What it is to say no more."""


class RemoveZone(Query[None], subject="ingest.remove_zone"):
    """Delete a zone and its files: out of the zone at once, from the store when no run reads them any more.

    NotFound if there is none of that name.
    """

    namespace: Text
    name: Text


class FileState(StrEnum):
    """What has become of a file in a zone."""

    LANDED = "landed"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    REMOVED = "removed"
    PROCESSED = "processed"


class LandingFile(Message):
    """A version of a file in a zone, as the API shows it."""

    id: UUID
    zone_id: UUID
    filename: str
    """Everything after the zone, slashes included."""
    s3_path: str
    """Its key in the bucket: below `_processed/` once it is archived."""
    size_bytes: int
    content_type: str | None
    etag: str
    state: FileState
    reason: str | None
    """Why it was rejected, or could not be archived: that is tried again, ever more seldom."""
    processed_by: UUID | None
    """The last good run that read it."""
    uploaded_by: str | None
    """Who uploaded it through the API; nobody where it came straight into the bucket."""
    uploaded_at: datetime


class LandingFiles(Message):
    """A page of files."""

    files: list[LandingFile]
    total: int
    next_cursor: str | None = None


class ListFiles(Query[LandingFiles], PageRequest, subject="ingest.list_files"):
    """List the files of a zone, the newest first.

    Without a state: all but those that were superseded or removed. NotFound if there is no such zone.
    """

    namespace: Text
    zone: Text
    state: FileState | None = None


class FindFile(Query[LandingFile], subject="ingest.find_file"):
    """Show one file of a zone; NotFound if there is none of that id."""

    namespace: Text
    zone: Text
    file_id: UUID


class RemoveFile(Query[None], subject="ingest.remove_file"):
    """Take a file out of its zone at once, and delete it from the store when no run reads it any more.

    NotFound if there is none of that id; doing it twice is fine.
    """

    namespace: Text
    zone: Text
    file_id: UUID


class RejectFile(Query[LandingFile], subject="ingest.reject_file"):
    """Keep a file out of `landing_zone()`, so that what it blocks can go on.

    NotFound if there is none of that id, Conflict if the zone does not hold it any more.
    """

    namespace: Text
    zone: Text
    file_id: UUID
    reason: Text | None = None


class RetryFile(Query[LandingFile], subject="ingest.retry_file"):
    """Look at a rejected file again; what is good now lands.

    NotFound if there is none of that id, Conflict if the zone does not hold it any more.
    """

    namespace: Text
    zone: Text
    file_id: UUID


class UploadAddress(Message):
    """Where to put a file: one PUT of the whole content."""

    url: str
    """Presigned: whoever knows it may PUT there until it expires."""
    method: Literal["PUT"] = "PUT"
    filename: str
    key: str
    """The object's key in the bucket."""
    expires_at: datetime


class AddressUpload(Query[UploadAddress], subject="ingest.address_upload"):
    """Ask where a file of this name can be put into a zone.

    NotFound if there is no such zone; Invalid for a name that a file cannot have, and for more than 5 GiB.
    """

    namespace: Text
    zone: Text
    filename: Text
    content_type: Text | None = None
    size_bytes: int | None = Field(default=None, ge=0)


class RecordUpload(Query[LandingFile], subject="ingest.record_upload"):
    """Say that a file was put where `ingest.address_upload` said; asking again gets the same file.

    NotFound if there is no such zone, or nothing lies there; Invalid for a name that a file cannot have.
    """

    namespace: Text
    zone: Text
    filename: Text
    version_id: Text | None = None
    """As the store answered the PUT; without it the store is asked what lies there now."""
    size_bytes: int | None = None
    etag: Text | None = None
    content_type: Text | None = None
    uploaded_by: Text | None = None


class DownloadAddress(Message):
    """Where the content of a file can be read."""

    url: str
    """Presigned: whoever knows it may GET until it expires."""
    filename: str
    content_type: str | None
    size_bytes: int
    expires_at: datetime


class AddressFile(Query[DownloadAddress], subject="ingest.address_file"):
    """Ask where this version of a file can be read; NotFound if there is none of that id, or it was deleted."""

    namespace: Text
    zone: Text
    file_id: UUID


class Sample(Message):
    """A file below `_samples/`, for previews only."""

    path: str
    """Its name below `_samples/`."""
    size: int
    modified: datetime
    type: str
    """The ending of the name: `csv`, `parquet`; empty without one."""


class Samples(Message):
    """A page of the samples of a zone."""

    files: list[Sample]
    total: int
    next_cursor: str | None = None


class ListSamples(Query[Samples], PageRequest, subject="ingest.list_samples"):
    """List the samples of a zone by name; NotFound if there is no such zone."""

    namespace: Text
    zone: Text


class AddressSample(Query[UploadAddress], subject="ingest.address_sample"):
    """Ask where a sample of this name can be put; there is nothing to record afterwards.

    NotFound if there is no such zone, Invalid for a name that a file cannot have.
    """

    namespace: Text
    zone: Text
    filename: Text


class RemoveSample(Query[None], subject="ingest.remove_sample"):
    """Delete a sample; NotFound if there is no such zone or sample."""

    namespace: Text
    zone: Text
    filename: Text
