"""One attempt of a run: its branch, its process, its merge and its report. What follows is decided by `domain`."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias, TypeVar

import structlog

from contracts.landing import CheckFiles, ClaimedFile, ClaimFiles, FilesChecked
from contracts.messages import Query, utc_now
from contracts.names import Qualified
from contracts.reports import AttemptReport, Input, Output
from contracts.runs import Attempt, AttemptFinished, CheckAttempt, ClaimReason, Phase, RunStatus
from services.runner import domain, report
from services.runner.code import Code
from services.runner.domain import (
    ClaimAgain,
    Fail,
    FailureKind,
    FilesState,
    MergeOutcome,
    Patience,
    Stop,
    Succeed,
    Work,
)
from services.runner.ending import UNREACHABLE, close_and_look, end_as_found, open_branches, patiently, unbroken
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
from services.runner.pool import Pool, Process, ProcessLost
from services.runner.problems import AuthorError
from shared.background import happens
from shared.bus import Bus
from shared.errors import AlreadyExists, NotFound, RatError, Unavailable
from shared.lakehouse.port import BranchClosed, Lakehouse, MergeConflict, Merged
from shared.object_store import ObjectStore
from shared.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")
RunnerPhase: TypeAlias = Literal["branch", "merge"]

_ASKING_SECONDS: Final = 8.0
"""How long a question is repeated to a service that does not answer, before the attempt is given up."""
_WATCH_SECONDS: Final = 0.5
_HEADROOM_BYTES: Final = 1_000_000_000
"""What a process may have beyond the memory of DuckDB: Python, PyIceberg, buffers of Parquet and Arrow."""


@dataclass(frozen=True)
class Resources:
    """What attempts are worked on with."""

    bus: Bus
    lakehouse: Lakehouse
    objects: ObjectStore
    code: Code
    pool: Pool
    settings: Settings


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
class AttemptWork:
    """The work on one attempt that this runner was given."""

    resources: Resources
    attempt: Attempt
    journal: Journal
    cancelled: asyncio.Event
    patience: Patience
    failure: FailureKind | None = None
    """The kind of failure that ended the attempt, if one did."""
    _timeout_seconds: float = 3600
    _memory_limit_bytes: int | None = None
    _base: str | None = None
    _has_files: bool = False
    _checking: asyncio.Task[None] | None = None
    _inputs: list[Input] = field(default_factory=list)
    _worked: Worked | None = None
    _merged: Merged | None = None

    @property
    def patience_left(self) -> Patience:
        """The patience with the attempt that follows this one."""
        return domain.patience_after(self.patience, self.failure)

    async def carry_out(self) -> AttemptFinished | ClaimAgain | Stop:
        """Work on the attempt; says how its run ended, or what the runner is to do instead of that."""
        step = await self._step()
        match step:
            case Succeed():
                return await self._succeed()
            case FoundOnMain(merged):
                await self._close_own_branch()
                return await end_as_found(self.resources.objects, self._pipeline, merged)
            case Fail():
                return await self._fail(step)
            case Stop():
                # Whoever made a newer attempt may have looked for our branch before it was there.
                await self._close_own_branch()
                return step
            case ClaimAgain():
                self.journal.log(
                    f"attempt {self.attempt.attempt} ends ({step.reason}),"
                    f" the next one follows in {step.pause_seconds:g} s"
                )
                return step

    async def _step(self) -> Step:
        try:
            worked = await self._work()
            self._worked = worked
            gate = domain.after_tests(worked.quality)
            if isinstance(gate, Fail):
                return gate
            if self.attempt.dry_run or not worked.has_written:
                await self._close_own_branch()
                return Succeed()
            return await self._merge()
        except Halted as halted:
            return halted.step
        except Broken as broken:
            kind, message = broken.kind, broken.message
        except ProcessLost as lost:
            kind, message = FailureKind.LOST_PROCESS, str(lost)
        except AuthorError as error:
            kind, message = FailureKind.COMPILE, str(error)
        except UNREACHABLE as error:
            kind, message = FailureKind.UNAVAILABLE, str(error) or type(error).__name__
        except RatError as error:
            kind, message = FailureKind.TRANSIENT, error.message
        self.failure = kind
        step = domain.after_failure(kind, message, self.attempt, self.patience)
        if not isinstance(step, Fail):
            self.journal.log(f"{kind}: {message}", level="warning")
        return step

    # Working

    async def _work(self) -> Worked:
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
            self._inputs = said.inputs
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
        await process.send(await self._order())
        while True:
            match await process.receive():
                case Logged(line=line):
                    self.journal.add(line)
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
            self._base = await lakehouse.create_branch(self._branch)
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
        if merged := await lakehouse.find_merge(attempt.run_id, attempt.head):
            raise Halted(FoundOnMain(merged))
        self._say_phase("branch", began, branch=self._branch, base=self._base)
        self.journal.log(f"attempt {attempt.attempt} works on branch {self._branch}, made from snapshot {self._base}")

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
            except NotFound as error:
                raise Broken(FailureKind.COMPILE, error.message) from error
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

    # Merging

    async def _merge(self) -> Step:
        """Keep the report, then merge; cancel and timeout wait for the answer."""
        self.journal.log(f"merging {self._branch}")
        await self._keep_report(self._report(RunStatus.SUCCESS))
        if self.cancelled.is_set():
            raise Broken(FailureKind.CANCELLED, "cancelled on request")
        began = perf_counter()
        outcome = await unbroken(self._ask_to_merge())
        if self._merged is not None:
            self._say_phase("merge", began, snapshot=self._merged.snapshot)
            if self._merged.attempt != self.attempt.attempt:
                return FoundOnMain(self._merged)
        return domain.after_merge(outcome, self.attempt, self.patience.outages)

    async def _ask_to_merge(self) -> MergeOutcome:
        try:
            self._merged = await self.resources.lakehouse.merge(self._branch, self.attempt.run_id, self.attempt.attempt)
        except MergeConflict as error:
            self.journal.log(error.message)
            return MergeOutcome.CONFLICT
        except BranchClosed:
            return MergeOutcome.CLOSED
        except (*UNREACHABLE, RatError) as error:
            log.warning("merge without an answer", run_id=str(self.attempt.run_id), error=str(error))
            self.failure = FailureKind.UNAVAILABLE
            return MergeOutcome.UNKNOWN
        return MergeOutcome.MERGED

    # Ending

    async def _succeed(self) -> AttemptFinished:
        kept = self._report(RunStatus.SUCCESS)
        if self._merged is None:
            await patiently("report", lambda: self._keep_report(kept))
        return report.finished(kept, merged=self._merged, lines=self.journal.lines)

    async def _fail(self, fail: Fail) -> AttemptFinished:
        """Close what could still merge, look on main, and report the failure of a run that is not there."""
        attempt = self.attempt
        merged = await close_and_look(self.resources.lakehouse, attempt.run_id, attempt.attempt, attempt.head)
        if merged is not None:
            return await end_as_found(self.resources.objects, self._pipeline, merged)
        self.journal.log(f"{fail.status} ({fail.kind}): {fail.error}", level="error")
        kept = self._report(fail.status, fail)
        await patiently("report", lambda: self._keep_report(kept))
        return report.finished(kept, merged=None, lines=self.journal.lines)

    async def _close_own_branch(self) -> None:
        """Close a branch that nobody will merge, so that it is swept; if that fails, nothing is lost."""
        with suppress(*UNREACHABLE, RatError):
            await self.resources.lakehouse.close_branch(self._branch)

    async def _keep_report(self, kept: AttemptReport) -> None:
        objects, attempt = self.resources.objects, self.attempt
        await asyncio.gather(
            objects.put(
                report.report_key(self._pipeline, attempt.run_id, attempt.attempt),
                kept.model_dump_json().encode(),
                content_type="application/json",
            ),
            objects.put(
                report.logs_key(self._pipeline, attempt.run_id, attempt.attempt),
                self.journal.as_json_lines(),
                content_type="application/jsonl",
            ),
        )

    def _report(self, status: RunStatus, fail: Fail | None = None) -> AttemptReport:
        attempt, worked = self.attempt, self._worked
        rows = worked.rows_written if worked is not None and status is RunStatus.SUCCESS else 0
        has_output = status is RunStatus.SUCCESS and worked is not None and worked.has_written
        return AttemptReport(
            run_id=attempt.run_id,
            attempt=attempt.attempt,
            pipeline=attempt.pipeline,
            status=status,
            error=fail.error if fail is not None else None,
            error_kind=fail.kind if fail is not None else None,
            branch=self._branch,
            rows_written=rows,
            files_read=worked.files_read if worked is not None else 0,
            phases=self.journal.phases,
            quality=worked.quality if worked is not None else [],
            inputs=[
                one if one.type != "table" else one.model_copy(update={"snapshot": self._base}) for one in self._inputs
            ],
            outputs=[Output(table=attempt.pipeline, rows=rows)] if has_output else [],
            logs_key=report.logs_key(self._pipeline, attempt.run_id, attempt.attempt),
        )

    @property
    def _pipeline(self) -> Qualified:
        return Qualified.parse(self.attempt.pipeline)

    @property
    def _branch(self) -> str:
        return domain.branch_name(self.attempt.run_id, self.attempt.attempt)

    def _say_phase(self, name: RunnerPhase, began: float, **metadata: str) -> None:
        duration = round((perf_counter() - began) * 1000, 3)
        self.journal.phase(Phase(name=name, duration_ms=duration, metadata=metadata))


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
