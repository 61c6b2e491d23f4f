"""The work on an attempt up to its merge: its branch, and the process that compiles, writes and tests on it."""

import asyncio
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias, TypeVar

from contracts.landing import CheckFiles, ClaimedFile, ClaimFiles, FilesChecked
from contracts.messages import Query, utc_now
from contracts.names import Qualified
from contracts.reports import Input
from contracts.runs import Attempt, CheckAttempt, ClaimReason, Phase
from services.runner import domain
from services.runner.domain import ClaimAgain, Fail, FailureKind, FilesState, Patience, Stop, Succeed, Work
from services.runner.ending import look, open_branches
from services.runner.frames import (
    AskFiles,
    AskLocations,
    Configured,
    Failed,
    Locations,
    Logged,
    PhaseDone,
    Worked,
    WorkOrder,
    ZoneFiles,
)
from services.runner.journal import Journal
from services.runner.pool import Process
from services.runner.python.source import PYTHON_FILE
from services.runner.resources import Resources
from shared.background import happens
from shared.errors import AlreadyExists, NotFound, Unavailable
from shared.lakehouse.port import BranchClosed, Merged

T = TypeVar("T")
RunnerPhase: TypeAlias = Literal["branch", "merge"]

_ASKING_SECONDS: Final = 8.0
"""How long a question is repeated to a service that does not answer, before the attempt is given up."""
_WATCH_SECONDS: Final = 0.5
_HEADROOM_BYTES: Final = 1_000_000_000
"""What a process may have beyond the memory of DuckDB: Python, PyIceberg, buffers of Parquet and Arrow."""


@dataclass(frozen=True)
class FoundOnMain:
    """An earlier attempt of the run has merged."""

    merged: Merged


Step = Succeed | Fail | ClaimAgain | Stop | FoundOnMain


class Halted(Exception):
    """The attempt ends here, and what is next is known."""

    def __init__(self, step: Step) -> None:
        super().__init__(str(step))
        self.step = step


class Broken(Exception):
    """The attempt cannot go on, and its kind of failure decides what is next."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass
class Working:
    """The work on one attempt, and what is known of it so far."""

    resources: Resources
    attempt: Attempt
    journal: Journal
    cancelled: asyncio.Event
    patience: Patience
    answered: frozenset[int] = frozenset()
    """Earlier attempts of which this runner knows that their merge was answered, or never sent."""
    base: str | None = None
    """The snapshot that the branch was made from."""
    inputs: list[Input] = field(default_factory=list)
    _timeout_seconds: float = 3600
    _memory_limit_bytes: int | None = None
    _has_files: bool = False
    _checking: asyncio.Task[None] | None = None

    async def do(self) -> Worked:
        """Make the branch while a process compiles, then let it write and test."""
        if self.cancelled.is_set():
            raise Broken(FailureKind.CANCELLED, "cancelled on request")
        branching = asyncio.create_task(self._make_branch())
        try:
            said = await self._in_process(branching)
            # Whatever came of the work: nothing is said of an attempt that is not the newest.
            await branching
            if self._checking is not None:
                await self._checking
            self.inputs = said.inputs
            if isinstance(said, Worked):
                return said
            if said.kind is FailureKind.SQL and self._has_files:
                # A file that was replaced or removed under the query can fail it in any way.
                await self._check_files()
            raise Broken(said.kind, said.error)
        finally:
            await _cancelled(branching, self._checking)

    async def _in_process(self, branching: asyncio.Task[None]) -> Worked | Failed:
        """Let a process do the work; it is killed by cancel, timeout and memory limit."""
        async with self.resources.pool.process() as process:
            conversation = asyncio.create_task(self._converse(process, branching))
            watch = asyncio.create_task(self._watch(process))
            try:
                await asyncio.wait({conversation, watch}, return_when=asyncio.FIRST_COMPLETED)
                if not conversation.done():
                    raise watch.result()
                said = conversation.result()
            finally:
                await _cancelled(conversation, watch)
            if isinstance(said, Failed) and said.kind in (FailureKind.INTERNAL, FailureKind.MEMORY):
                # Who knows what state the process is in: leaving the block by an error ends it.
                await branching
                raise Broken(said.kind, said.error)
            return said

    async def _watch(self, process: Process) -> Broken:
        """Wait for a reason to kill the process."""
        began = perf_counter()
        while True:
            remaining = began + self._timeout_seconds - perf_counter()
            if remaining <= 0:
                return Broken(FailureKind.TIMEOUT, f"took longer than {self._timeout_seconds:g} s (timeout_seconds)")
            if await happens(self.cancelled, within_seconds=min(_WATCH_SECONDS, remaining)):
                return Broken(FailureKind.CANCELLED, "cancelled on request")
            limit = (self._memory_limit_bytes or self.resources.pool.memory_limit_bytes) + _HEADROOM_BYTES
            if process.resident_bytes() > limit:
                return Broken(FailureKind.MEMORY, f"the process needed more than {limit} bytes of memory")

    async def _converse(self, process: Process, branching: asyncio.Task[None]) -> Worked | Failed:
        """Give the process its order, answer what it asks, and hear what came of it."""
        order = await self._order()
        # What an author's Python leaves behind in its process is not for the next run.
        process.is_spent = PYTHON_FILE in order.files
        await process.send(order)
        while True:
            match await process.receive():
                case Logged(line=line):
                    self.journal.add(line)
                    # One that says much must not keep the others waiting.
                    await asyncio.sleep(0)
                case Configured() as configured:
                    self._heed(configured)
                case AskFiles() as question:
                    await process.send(await self._claim_files(question))
                case AskLocations(tables=tables):
                    await branching
                    await process.send(await self._locate(tables))
                case PhaseDone(phase=phase):
                    self.journal.phase(phase)
                    if phase.name == "write" and self._has_files:
                        self._checking = asyncio.create_task(self._check_files())
                case Worked() | Failed() as said:
                    return said
                case other:
                    raise Broken(FailureKind.INTERNAL, f"the process said {other.type!r}, which nobody waits for")

    async def _order(self) -> WorkOrder:
        attempt = self.attempt
        return WorkOrder(
            run_id=attempt.run_id,
            attempt=attempt.attempt,
            pipeline=attempt.pipeline,
            pipeline_id=attempt.pipeline_id,
            branch=self._branch,
            files=await self.resources.code.read(self._pipeline, attempt.files),
            parameters=attempt.parameters,
            started_at=utc_now(),
        )

    def _heed(self, configured: Configured) -> None:
        self._timeout_seconds = configured.timeout_seconds
        self._memory_limit_bytes = configured.memory_limit_bytes
        self.patience = replace(
            self.patience, max_retries=configured.max_retries, retry_delay_seconds=configured.retry_delay_seconds
        )

    async def _make_branch(self) -> None:
        """The phase `branch`: nothing is written before it is over."""
        began = perf_counter()
        lakehouse, attempt = self.resources.lakehouse, self.attempt
        await lakehouse.ensure_namespace(self._pipeline.namespace, self._pipeline.layer)
        try:
            self.base = await lakehouse.create_branch(self._branch)
        except BranchClosed as error:
            # Whoever ends the run has closed the name before it was a branch.
            raise Halted(Stop()) from error
        except AlreadyExists as error:
            # No branch is made twice: what an earlier life of this attempt left on it is not known.
            pause = domain.outage_pause(self.patience.outages)
            raise Halted(ClaimAgain(ClaimReason.UNAVAILABLE, pause)) from error
        state = await self._ask(CheckAttempt(run_id=attempt.run_id, attempt=attempt.attempt))
        step = domain.after_check(state)
        if not isinstance(step, Work):
            raise Halted(step)
        await self._close_older_branches()
        if merged := await look(lakehouse, attempt.run_id, attempt.attempt - 1, attempt.head, answered=self.answered):
            raise Halted(FoundOnMain(merged))
        self.journal.phase(phase_since(began, "branch", branch=self._branch, base=self.base))
        self.journal.log(f"attempt {attempt.attempt} works on branch {self._branch}, made from snapshot {self.base}")

    async def _close_older_branches(self) -> None:
        if self.attempt.attempt == 1:
            return
        branches = await open_branches(self.resources.lakehouse, self.attempt.run_id)
        for name in domain.older_branches(branches, self.attempt.run_id, self.attempt.attempt):
            await self.resources.lakehouse.close_branch(name)

    async def _locate(self, tables: list[str]) -> Locations:
        names = [Qualified.parse(table) for table in tables]
        found = await asyncio.gather(*(self.resources.lakehouse.location(name, self._branch) for name in names))
        return Locations(locations=dict(zip(tables, found, strict=True)))

    async def _claim_files(self, question: AskFiles) -> ZoneFiles:
        """All pages of the files that the run reads of a zone; asks again while an earlier run is unsettled."""
        files: list[ClaimedFile] = []
        cursor: str | None = None
        pause = 0.02
        while True:
            query = ClaimFiles(
                run_id=self.attempt.run_id,
                attempt=self.attempt.attempt,
                pipeline=self.attempt.pipeline,
                pipeline_id=self.attempt.pipeline_id,
                namespace=question.namespace,
                zone=question.zone,
                form=question.form,
                cursor=cursor,
            )
            try:
                page = await self._ask(query)
            except NotFound:
                return ZoneFiles(files=[], expected_schema="", last_file=None, is_there=False)
            match page.state:
                case "over":
                    raise Halted(Stop())
                case "not_yet":
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 1)
                    files, cursor = [], None
                    continue
            files += page.files
            cursor = page.next_cursor
            if cursor is None:
                self._has_files = self._has_files or bool(files)
                return ZoneFiles(files=files, expected_schema=page.expected_schema, last_file=page.last_file)

    async def _check_files(self) -> None:
        """See whether what was read is still what the run claimed."""
        checked: FilesChecked = await self._ask(CheckFiles(run_id=self.attempt.run_id, attempt=self.attempt.attempt))
        step = domain.after_files(FilesState(checked.state), checked.changed, self.attempt)
        if not isinstance(step, Work):
            if checked.changed:
                self.journal.log(f"files changed while they were read: {', '.join(checked.changed[:5])}")
            raise Halted(step)

    async def _ask(self, query: Query[T]) -> T:
        """Ask a service; one that is being restarted is asked again for a while."""
        deadline = perf_counter() + _ASKING_SECONDS
        pause = 0.05
        while True:
            try:
                return await self.resources.bus.ask(query)
            except Unavailable:
                if perf_counter() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1)

    @property
    def _pipeline(self) -> Qualified:
        return Qualified.parse(self.attempt.pipeline)

    @property
    def _branch(self) -> str:
        return domain.branch_name(self.attempt.run_id, self.attempt.attempt)


def phase_since(began: float, name: RunnerPhase, **metadata: str) -> Phase:
    """A phase that began at this reading of the clock and ends now."""
    return Phase(name=name, duration_ms=round((perf_counter() - began) * 1000, 3), metadata=metadata)


async def _cancelled(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel what is still going on, and wait until it is over."""
    all_of_them = {task for task in tasks if task is not None}
    running = all_of_them
    while running:
        for task in running:
            task.cancel()
        # A library under the task may lose the cancellation at the end of a wait: it is repeated.
        _, running = await asyncio.wait(running, timeout=0.2)
    for task in all_of_them:
        if not task.cancelled():
            # What it raised was dealt with where it was waited for; looking at it keeps asyncio from complaining.
            task.exception()
