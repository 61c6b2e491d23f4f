"""Runs are worked on here, as many at a time as there are workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import uuid4

import structlog

from contracts.landing import CheckFiles, ClaimFiles, FindZone, ListFiles, ListSamples, ListZones
from contracts.maintenance import ClaimUpkeep, CollectFiles, EndUpkeep
from contracts.names import Qualified
from contracts.pipelines import CheckedFile, FileProblem, PinDraft, ValidatePipeline, Validation
from contracts.previews import PreviewPipeline, RunTests, Sent
from contracts.runs import AttemptFinished, CheckAttempt, ClaimRun, LogWritten, RunCancel, RunProgressed, RunQueued
from services.runner import domain
from services.runner.code import Code
from services.runner.domain import Work
from services.runner.frames import Failed, FromProcess, Validated, ValidationOrder
from services.runner.held import HeldRun
from services.runner.keys import run_keys
from services.runner.looks import Looks
from services.runner.pool import ProcessLost, pool
from services.runner.problems import AuthorError
from services.runner.resources import Resources
from services.runner.upkeep import Upkeep
from shared.background import background, end, every
from shared.bus import Bus, connect
from shared.errors import Internal, Unavailable
from shared.lakehouse.connect import lakehouse
from shared.leases import Lease, Taker
from shared.logs import correlation_id
from shared.object_store import object_store
from shared.settings import Settings
from shared.turns import turn

log = structlog.get_logger()

_VALIDATION_SECONDS: Final = 20.0
_QUEUE_SECONDS: Final = 8.0
"""How long files wait for others that are checked; with the time that they take, less than whoever asks waits."""
_SWEEP_SECONDS: Final = 3600.0
_GRACE_SECONDS: Final = 3.0
"""How long runs may go on when the runner is told to stop; most are over by then."""


@dataclass(frozen=True, repr=False)
class Runner:
    """The runs that this runner holds, and what it works on them with."""

    resources: Resources
    free: asyncio.Semaphore
    """A place for each worker."""
    checks: asyncio.Semaphore
    """As many places for files that are checked: each one takes a process."""
    looks: Looks
    name: str = field(default_factory=lambda: uuid4().hex)
    held: set[HeldRun] = field(default_factory=set)
    working: set[asyncio.Task[None]] = field(default_factory=set)

    async def cancel_run(self, event: RunCancel) -> None:
        """Stop working on a run that is not wanted any more."""
        for held in self.held:
            if held.queued.run_id == event.run_id:
                held.cancelled.set()

    async def validate_pipeline(self, query: ValidatePipeline) -> Validation:
        """Check every file of a pipeline as a run would read it, without running any of it."""
        try:
            files = await self.resources.code.read(Qualified.parse(query.pipeline), query.files)
        except AuthorError as error:
            return _unreadable(error)
        refusal = "too many pipelines are being checked already: try again later"
        async with turn(self.checks, within_seconds=_QUEUE_SECONDS, otherwise=refusal):
            answer = await self._checked(ValidationOrder(pipeline=query.pipeline, files=files))
        if isinstance(answer, Failed):
            raise Internal(f"the files could not be checked: {answer.error}")
        assert isinstance(answer, Validated), f"a validation was answered by {answer.type}"
        return answer.validation

    async def _checked(self, order: ValidationOrder) -> FromProcess:
        try:
            async with asyncio.timeout(_VALIDATION_SECONDS), self.resources.pool.process() as process:
                await process.send(order)
                return await process.receive()
        except (TimeoutError, ProcessLost) as error:
            raise Unavailable(f"the files could not be checked within {_VALIDATION_SECONDS:g} s") from error

    async def preview_pipeline(self, query: PreviewPipeline) -> Sent:
        """Run code over samples, and send what it gives; nothing is written."""
        return await self.looks.preview(query)

    async def run_tests(self, query: RunTests) -> Sent:
        """Run the tests of a pipeline on main, and send how they judge it."""
        return await self.looks.run_tests(query)

    async def sweep_branches(self) -> None:
        """Forget the branches of runs that ended long ago; until then they can be looked at.

        Every runner does so, as often as it likes: a branch is deleted once, and one that is in use is never closed.
        """
        await self._close_orphans()
        max_age = timedelta(hours=self.resources.settings.nessie_orphan_branch_max_age_hours)
        swept = await self.resources.lakehouse.sweep_branches(max_age)
        if swept:
            log.info("branches swept", branches=len(swept))

    async def _close_orphans(self) -> None:
        """Close the branches that a runner could not close, as it was lost or the lakehouse away."""
        for branch in await self.resources.lakehouse.branches(domain.RUN_BRANCHES):
            known = domain.attempt_of_branch(branch.name)
            if branch.closed_at is not None or known is None:
                continue
            run_id, attempt = known
            state = await self.resources.bus.ask(CheckAttempt(run_id=run_id, attempt=attempt))
            if not isinstance(domain.after_check(state), Work):
                await self.resources.lakehouse.close_branch(branch.name)
                log.info("orphan closed", branch=branch.name)
        for branch in await self.resources.lakehouse.branches(domain.UPKEEP_BRANCHES):
            # One that is in use is made anew: it lasts for a moment.
            if branch.closed_at is None:
                await self.resources.lakehouse.close_branch(branch.name)

    async def take_runs(self, taker: Taker) -> None:
        """Take a run whenever a worker is free, for as long as the runner lives."""
        while True:
            await self.free.acquire()
            try:
                lease = await taker.take()
            except BaseException:
                self.free.release()
                raise
            task = asyncio.create_task(self._hold(lease))
            self.working.add(task)
            task.add_done_callback(self._release)

    def _release(self, task: asyncio.Task[None]) -> None:
        self.working.discard(task)
        self.free.release()

    async def _hold(self, lease: Lease) -> None:
        assert isinstance(lease.event, RunQueued), "nothing else is taken"
        correlation_id.set(lease.message.correlation_id)
        held = HeldRun(self.resources, lease, lease.event, self.name)
        self.held.add(held)
        try:
            await held.carry_out()
        except asyncio.CancelledError:
            await lease.give_back(0)
            raise
        except Exception:
            log.exception("a run could not be worked on", run_id=str(lease.event.run_id))
            await lease.give_back(10)
        finally:
            self.held.discard(held)


def wire(bus: Bus, runner: Runner, upkeep: Upkeep) -> Taker:
    """Declare what the runner hears, says, asks and answers, and give what it takes runs from."""
    bus.hear(RunCancel, runner.cancel_run)
    bus.answer(ValidatePipeline, runner.validate_pipeline)
    bus.answer(PreviewPipeline, runner.preview_pipeline)
    bus.answer(RunTests, runner.run_tests)
    bus.answer(CollectFiles, upkeep.collect_files)
    bus.say(AttemptFinished, RunProgressed, LogWritten)
    bus.asks(ClaimRun, CheckAttempt, ClaimFiles, CheckFiles, ClaimUpkeep, EndUpkeep)
    bus.asks(PinDraft, FindZone, ListSamples, ListFiles, ListZones)
    return bus.take(RunQueued)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[None]:
    """Work on runs until the block is left."""
    bus = connect(settings, "runner")
    async with (
        lakehouse(settings, "runner") as tables,
        object_store(settings, "runner") as objects,
        pool(settings) as processes,
        run_keys(settings) as keys,
    ):
        resources = Resources(bus, tables, objects, Code(objects), processes, keys, settings)
        free, checks = asyncio.Semaphore(settings.runner_workers), asyncio.Semaphore(settings.runner_workers)
        runner = Runner(resources, free, checks, Looks(resources))
        upkeep = Upkeep(resources, runner.name)
        taker = wire(bus, runner, upkeep)
        bus.check("lakehouse", tables.head)
        bus.check("object_store", lambda: objects.reach("default/bronze/"))
        jobs = (
            lambda: runner.take_runs(taker),
            lambda: every(_SWEEP_SECONDS, runner.sweep_branches),
            upkeep.look_after_changed_tables,
            upkeep.collect_now_and_then,
        )
        async with bus.running(), _finishing(runner), background(*jobs):
            yield


@asynccontextmanager
async def _finishing(runner: Runner) -> AsyncIterator[None]:
    """Give what goes on a short while at the end, then break it off: its message goes to another runner at once."""
    try:
        yield
    finally:
        if runner.working:
            await asyncio.wait(runner.working, timeout=_GRACE_SECONDS)
        await end(runner.working)


def _unreadable(error: AuthorError) -> Validation:
    return Validation(
        valid=False,
        files=[
            CheckedFile(path=problem.path, valid=False, errors=[FileProblem(message=problem.message)])
            for problem in error.problems
        ],
    )
