"""The work on an attempt up to its merge: its branch, and the process that compiles, writes and tests on it."""

import asyncio
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final, Literal, TypeAlias, TypeVar

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
    AskMove,
    AskSimilar,
    Comparing,
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
from services.runner.keys import namespaces_named
from services.runner.known import similar
from services.runner.lending import Lending
from services.runner.locating import locate
from services.runner.moving import move
from services.runner.pool import Process
from services.runner.python.source import PYTHON_FILE
from services.runner.resources import Resources
from services.runner.watch import Allowance, Broken, end_all, watched
from shared.errors import AlreadyExists, NotFound, Unavailable
from shared.lakehouse.port import BranchClosed, Merged

T = TypeVar("T")
RunnerPhase: TypeAlias = Literal["branch", "merge"]

_ASKING_SECONDS: Final = 8.0
"""How long a question is repeated to a service that does not answer, before the attempt is given up."""


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
    _has_files: bool = False
    _checking: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._allowance = Allowance(self.resources.pool.memory_limit_bytes)

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
            if said.kind in (FailureKind.SQL, FailureKind.PYTHON) and self._has_files:
                # A file that was replaced or removed under the query can fail it in any way.
                await self._check_files()
            raise self._broken(said)
        finally:
            await end_all(branching, self._checking)

    async def _in_process(self, branching: asyncio.Task[None]) -> Worked | Failed:
        """Let a process do the work; cancel and timeout interrupt it, and kill it if it goes on, memory kills it."""
        async with self.resources.pool.process() as process:
            said = await watched(
                process, self._converse(process, branching), self._allowance, self.cancelled, self.journal.log
            )
            if isinstance(said, Failed) and said.kind in (FailureKind.INTERNAL, FailureKind.MEMORY):
                # Who knows what state the process is in: leaving the block by an error ends it.
                await branching
                raise self._broken(said)
        if isinstance(said, Broken):
            raise said
        return said

    def _broken(self, said: Failed) -> Broken:
        return self._allowance.used_up(said.error) if said.kind is FailureKind.MEMORY else Broken(said.kind, said.error)

    async def _converse(self, process: Process, branching: asyncio.Task[None]) -> Worked | Failed:
        """Give the process its order, answer what it asks, and hear what came of it."""
        order = await self._order()
        lending = Lending(
            self.resources.keys,
            process,
            name=self._branch,
            zones_of={self._pipeline.namespace, *namespaces_named(order.files, self.resources.settings.s3_bucket)},
            writes=self._pipeline,
        )
        try:
            return await self._answer(process, order, lending, branching)
        finally:
            await lending.end()

    async def _answer(
        self, process: Process, order: WorkOrder, lending: Lending, branching: asyncio.Task[None]
    ) -> Worked | Failed:
        if not self.resources.keys.are_made:
            self.journal.log(
                "the process of this run uses the object store with the runner's own key: s3_run_role is not set",
                level="warning",
            )
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
                    lending.expect(configured.timeout_seconds)
                case AskFiles() as question:
                    files = await self._claim_files(question)
                    await lending.give(question.namespace if files.is_there else None)
                    await process.send(files)
                case AskLocations(tables=tables):
                    await self._branched(branching)
                    locations = await self._locate(tables)
                    await lending.give()
                    await process.send(locations)
                case AskMove() as question:
                    await self._branched(branching)
                    await process.send(await move(self.resources, self._branch, self._pipeline, question))
                case AskSimilar() as question:
                    await process.send(await similar(self.resources, question, self._branch))
                case PhaseDone(phase=phase):
                    self._allowance.phase = domain.phase_after(phase.name)
                    self.journal.phase(phase)
                    if phase.name == "write" and self._has_files:
                        self._checking = asyncio.create_task(self._check_files())
                case Comparing():
                    self._allowance.phase = "comparison with main"
                case Worked() | Failed() as said:
                    return said
                case other:
                    raise Broken(FailureKind.INTERNAL, f"the process said {other.type!r}, which nobody waits for")

    async def _branched(self, branching: asyncio.Task[None]) -> None:
        """Wait for the branch, which is what time is spent on then."""
        if not branching.done():
            at_work_on, self._allowance.phase = self._allowance.phase, "branch"
            await branching
            self._allowance.phase = at_work_on
        await branching

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
            dry_run=attempt.dry_run,
        )

    def _heed(self, configured: Configured) -> None:
        self._allowance.timeout_seconds = configured.timeout_seconds
        self._allowance.memory_limit_bytes = configured.memory_limit_bytes
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
        if domain.follows_others(attempt.attempt):
            await self._end_earlier_attempts()
        self.journal.phase(phase_since(began, "branch", branch=self._branch, base=self.base))
        self.journal.log(f"attempt {attempt.attempt} works on branch {self._branch}, made from snapshot {self.base}")

    async def _end_earlier_attempts(self) -> None:
        """Close the branches of earlier attempts, then see whether one of them has merged."""
        lakehouse, attempt = self.resources.lakehouse, self.attempt
        for name in domain.older_branches(
            await open_branches(lakehouse, attempt.run_id), attempt.run_id, attempt.attempt
        ):
            await lakehouse.close_branch(name)
        if merged := await look(lakehouse, attempt.run_id, attempt.attempt - 1, attempt.head, answered=self.answered):
            raise Halted(FoundOnMain(merged))

    async def _locate(self, tables: list[str]) -> Locations:
        return await locate(self.resources.lakehouse, self.resources.objects, tables, self._branch)

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
