"""One attempt of a run, from its work to its end: what follows is decided by `domain`."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import structlog

from contracts.names import Qualified
from contracts.reports import AttemptReport, Output
from contracts.runs import Attempt, AttemptFinished, RunStatus
from services.runner import domain, report
from services.runner.domain import ClaimAgain, Fail, FailureKind, MergeOutcome, Patience, Stop, Succeed
from services.runner.ending import UNREACHABLE, close_and_look, end_as_found, patiently, unbroken
from services.runner.frames import Worked
from services.runner.journal import Journal
from services.runner.pool import ProcessLost
from services.runner.problems import AuthorError
from services.runner.resources import Resources
from services.runner.watch import Broken
from services.runner.working import FoundOnMain, Halted, Step, Working, phase_since
from shared.errors import RatError
from shared.lakehouse.port import BranchClosed, MergeConflict, Merged

log = structlog.get_logger()


@dataclass
class AttemptWork:
    """The work on one attempt that this runner was given."""

    resources: Resources
    attempt: Attempt
    journal: Journal
    cancelled: asyncio.Event
    patience: Patience
    answered: frozenset[int] = frozenset()
    """Earlier attempts of which this runner knows that their merge was answered, or never sent."""
    _failure: FailureKind | None = None
    _worked: Worked | None = None
    _merged: Merged | None = None
    _is_unanswered: bool = False

    def __post_init__(self) -> None:
        self._working = Working(
            self.resources, self.attempt, self.journal, self.cancelled, self.patience, self.answered
        )

    @property
    def patience_left(self) -> Patience:
        """The patience with the attempt that follows this one."""
        return domain.patience_after(self._working.patience, self._failure)

    @property
    def answered_with_this(self) -> frozenset[int]:
        """The attempts, this one included, of which it is known that their merge was answered, or never sent."""
        return self.answered if self._is_unanswered else self.answered | {self.attempt.attempt}

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
            worked = self._worked = await self._working.do()
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
        self._failure = kind
        step = domain.after_failure(kind, message, self.attempt, self._working.patience)
        if not isinstance(step, Fail):
            self.journal.log(f"{kind}: {message}", level="warning")
        return step

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
            self.journal.phase(phase_since(began, "merge", snapshot=self._merged.snapshot))
            if self._merged.attempt != self.attempt.attempt:
                return FoundOnMain(self._merged)
            await self.resources.gaps.leave(self._pipeline, self.attempt.run_id)
        return domain.after_merge(outcome, self.attempt, self.patience.outages)

    async def _ask_to_merge(self) -> MergeOutcome:
        try:
            self._is_unanswered = True
            self._merged = await self.resources.lakehouse.merge(
                self._branch, self.attempt.run_id, self.attempt.attempt, since=self.attempt.head
            )
            self._is_unanswered = False
            if self._merged is not None:
                self.resources.changed.note(self._merged, self._files_written)
        except MergeConflict as error:
            self._is_unanswered = False
            self.journal.log(error.message)
            return MergeOutcome.CONFLICT
        except BranchClosed:
            self._is_unanswered = False
            return MergeOutcome.CLOSED
        except (*UNREACHABLE, RatError) as error:
            log.warning("merge without an answer", run_id=str(self.attempt.run_id), error=str(error))
            self._failure = FailureKind.UNAVAILABLE
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
        merged = await close_and_look(
            self.resources.lakehouse,
            attempt.run_id,
            attempt.attempt,
            attempt.head,
            answered=self.answered_with_this,
        )
        if merged is not None:
            return await end_as_found(self.resources.objects, self._pipeline, merged)
        self.journal.log(f"{fail.status} ({fail.kind}): {fail.error}", level="error")
        kept = self._report(fail.status, fail)
        await patiently("report", lambda: self._keep_report(kept))
        return report.finished(kept, merged=None, lines=self.journal.lines)

    @property
    def _files_written(self) -> int:
        return sum(phase.metadata.get("files", 0) for phase in self.journal.phases if phase.name == "write")

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
                one if one.type != "table" else one.model_copy(update={"snapshot": self._working.base})
                for one in self._working.inputs
            ],
            outputs=[Output(table=attempt.pipeline, rows=rows)] if has_output else [],
            changes=worked.changes if worked is not None else [],
            logs_key=report.logs_key(self._pipeline, attempt.run_id, attempt.attempt),
        )

    @property
    def _pipeline(self) -> Qualified:
        return Qualified.parse(self.attempt.pipeline)

    @property
    def _branch(self) -> str:
        return domain.branch_name(self.attempt.run_id, self.attempt.attempt)
