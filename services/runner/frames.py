"""What a runner and the processes of its pool say to each other: JSON messages, each after its length, over pipes."""

import struct
from asyncio import StreamReader
from typing import Annotated, Any, BinaryIO, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, TypeAdapter

from contracts.landing import ClaimedFile, ZoneForm
from contracts.messages import Message
from contracts.names import PipelineName
from contracts.pipelines import Validation
from contracts.previews import PreviewColumn, PreviewPhase
from contracts.reports import Input, QualityResult, TableChanges
from contracts.runs import LogLine, Phase
from services.runner.domain import FailureKind

_LENGTH: Final = struct.Struct(">I")
_LONGEST: Final = 256_000_000
"""Bytes of a message; what claims to be longer is none, and nobody waits for it."""

# To a process


class SetUp(Message):
    """The first message to a process: the settings it has, as its environment has none of them."""

    type: Literal["set_up"] = "set_up"
    settings: dict[str, str]
    threads: int
    memory_limit_bytes: int
    spill_directory: str


class WorkOrder(Message):
    """An attempt to work on: everything that a process needs to know but what it has to ask for."""

    type: Literal["work"] = "work"
    run_id: UUID
    attempt: int
    pipeline: PipelineName
    pipeline_id: UUID
    branch: str
    files: dict[str, str]
    """Path below the pipeline's folder → text."""
    parameters: dict[str, Any]
    started_at: AwareDatetime
    dry_run: bool = False
    """Whether to say what the branch changes of main."""


class ZoneFiles(Message):
    """The answer to `AskFiles`: all files of the zone that the run reads."""

    type: Literal["files"] = "files"
    files: list[ClaimedFile]
    expected_schema: str
    last_file: ClaimedFile | None
    is_there: bool = True
    """Whether there is such a zone."""


class StoredView(Message):
    """A view as it is kept."""

    location: str
    """Of its metadata."""
    query: str


class Locations(Message):
    """The answer to `AskLocations`: the branch is made and checked, and there the tables are."""

    type: Literal["locations"] = "locations"
    locations: dict[str, str | None]
    """Name of a table → where its metadata is; None where there is no such table, or a view is."""
    views: dict[str, StoredView] = {}


class Similar(Message):
    """The answer to `AskSimilar`: what may have been meant, None if nothing is like it."""

    type: Literal["similar"] = "similar"
    name: str | None


class ValidationOrder(Message):
    """Files to check as a run would read them."""

    type: Literal["validate"] = "validate"
    pipeline: PipelineName
    files: dict[str, str]


class PreviewOrder(Message):
    """Code to run over what the runner gives it, without writing anything."""

    type: Literal["preview"] = "preview"
    pipeline: PipelineName
    files: dict[str, str]
    limit: int


class TestOrder(Message):
    """Tests to run on what main holds."""

    type: Literal["test"] = "test"
    pipeline: PipelineName
    files: dict[str, str]


class UseKey(Message):
    """The key to use the object store with from now on; heard at once, before anything that is said after it."""

    type: Literal["use_key"] = "use_key"
    access_key_id: str
    secret_access_key: str
    session_token: str


class Moved(Message):
    """The answer to `AskMove`."""

    type: Literal["moved"] = "moved"
    refused: Literal["conflict", "closed"] | None
    """None if the table was moved."""
    message: str = ""


class Interrupt(Message):
    """Stop what goes on, now: nobody waits for what comes of it."""

    type: Literal["interrupt"] = "interrupt"


class CompactOrder(Message):
    """A table whose small files are to be written anew, as few; nothing is committed yet."""

    type: Literal["compact"] = "compact"
    table: PipelineName
    at_least: int
    """So many of a kind are worth it."""


class CommitOn(Message):
    """A branch to commit what was written anew on; None where that is over."""

    type: Literal["commit_on"] = "commit_on"
    branch: str | None


ToProcess = Annotated[
    SetUp
    | WorkOrder
    | ZoneFiles
    | Locations
    | Similar
    | ValidationOrder
    | PreviewOrder
    | TestOrder
    | Interrupt
    | UseKey
    | Moved
    | CompactOrder
    | CommitOn,
    Field(discriminator="type"),
]

# From a process


class NewMetadata(Message):
    """A metadata file of the table, in the store already, and what it says is current."""

    location: str
    snapshot_id: int | None
    schema_id: int
    spec_id: int
    sort_order_id: int


class NewView(Message):
    """A metadata file of a view, in the store already, and what it says is current."""

    location: str
    version_id: int
    schema_id: int


class Ready(Message):
    """The process is warm and waits for work."""

    type: Literal["ready"] = "ready"


class Logged(Message):
    """A line of the run's log."""

    type: Literal["logged"] = "logged"
    line: LogLine


class Configured(Message):
    """What the author allows the run."""

    type: Literal["configured"] = "configured"
    timeout_seconds: float
    max_retries: int
    retry_delay_seconds: float
    memory_limit_bytes: int


class AskFiles(Message):
    """Which files of a zone does the run read?"""

    type: Literal["ask_files"] = "ask_files"
    namespace: str
    zone: str
    form: ZoneForm


class AskLocations(Message):
    """Where are these tables, as the branch sees them? Nothing is written before this is answered."""

    type: Literal["ask_locations"] = "ask_locations"
    tables: list[PipelineName]


class AskMove(Message):
    """Move the run's table, or view, on its branch from one metadata file to the next; None stands for neither.

    A process has no way to the lakehouse of its own.
    """

    type: Literal["ask_move"] = "ask_move"
    expected: str | None
    new: NewMetadata | NewView | None


class AskSimilar(Message):
    """Which table of the branch, or which landing zone, has a name like this one, which there is not?"""

    type: Literal["ask_similar"] = "ask_similar"
    kind: Literal["table", "landing_zone"]
    name: str


class PhaseDone(Message):
    """A phase is done. After `write` the files that were read are not needed any more."""

    type: Literal["phase_done"] = "phase_done"
    phase: Phase


class Comparing(Message):
    """What comes next is the comparison of the branch with main, after all phases of the process."""

    type: Literal["comparing"] = "comparing"


class Worked(Message):
    """The work is done: the branch holds what is to be merged, and the tests have judged it."""

    type: Literal["worked"] = "worked"
    has_written: bool
    rows_written: int
    files_read: int
    inputs: list[Input]
    quality: list[QualityResult]
    changes: list[TableChanges] = []


class Failed(Message):
    """The work cannot be done, and why."""

    type: Literal["failed"] = "failed"
    kind: FailureKind
    error: str
    inputs: list[Input] = []


class Validated(Message):
    """The answer to a `ValidationOrder`."""

    type: Literal["validated"] = "validated"
    validation: Validation


class Previewed(Message):
    """A part of a preview: what it sets is known now."""

    type: Literal["previewed"] = "previewed"
    columns: list[PreviewColumn] | None = None
    rows: list[dict[str, Any]] | None = None
    total_row_count: int | None = None
    explain_output: str | None = None
    memory_peak_bytes: int | None = None
    warnings: list[str] = []
    phase: PreviewPhase | None = None


class Looked(Message):
    """The preview is done."""

    type: Literal["looked"] = "looked"


class Tested(Message):
    """How the tests judge what main holds."""

    type: Literal["tested"] = "tested"
    results: list[QualityResult]


class Rewritten(Message):
    """Small files are written anew, and wait for a branch to be committed on."""

    type: Literal["rewritten"] = "rewritten"
    removed: int
    added: int


class Compacted(Message):
    """What was written anew is committed on the branch."""

    type: Literal["compacted"] = "compacted"


class NotCompacted(Message):
    """The table has no small files that are worth it, or has moved on from those that were written anew."""

    type: Literal["not_compacted"] = "not_compacted"


FromProcess = Annotated[
    Ready
    | Logged
    | Configured
    | AskFiles
    | AskLocations
    | AskMove
    | AskSimilar
    | PhaseDone
    | Comparing
    | Worked
    | Failed
    | Validated
    | Previewed
    | Looked
    | Tested
    | Rewritten
    | Compacted
    | NotCompacted,
    Field(discriminator="type"),
]

_to_process: Final[TypeAdapter[ToProcess]] = TypeAdapter(ToProcess)
_from_process: Final[TypeAdapter[FromProcess]] = TypeAdapter(FromProcess)

# The frames


def frame(message: Message) -> bytes:
    """A message as it goes through a pipe."""
    body = message.model_dump_json().encode()
    return _LENGTH.pack(len(body)) + body


async def read_from_process(stream: StreamReader) -> FromProcess:
    """The next message of a process; `IncompleteReadError` when it is gone, `ValueError` for what is no message."""
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return _from_process.validate_json(await stream.readexactly(length))


def read_in_process(stream: BinaryIO) -> ToProcess:
    """The next message to this process; `EOFError` when whoever started it is gone."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _to_process.validate_json(_exactly(stream, length))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
