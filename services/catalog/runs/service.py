"""Runs: requests become runs, runs are queued one at a time, claimed by runners, and end once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog
from pydantic import ValidationError

from contracts.messages import derived_id, utc_now
from contracts.names import Qualified
from contracts.reports import AttemptReport
from contracts.runs import (
    AddressRunLogs,
    AttemptFinished,
    AttemptState,
    CancelRun,
    CheckAttempt,
    Claimed,
    ClaimRun,
    ErrorKind,
    FindRun,
    FindRunOutcome,
    ListRuns,
    Over,
    RejectionReason,
    RequestRun,
    RetryRun,
    Run,
    RunAccepted,
    RunCancel,
    RunFinished,
    RunLogs,
    RunOutcome,
    RunProgressed,
    RunQueued,
    RunRejected,
    RunRequested,
    Runs,
    RunStarted,
    RunStatus,
    Superseded,
    run_id_for,
)
from contracts.tables import TableChanged
from services.catalog.code.pins import draft_pins
from services.catalog.runs import domain, messages
from services.catalog.runs.store import ends, lists, pipelines, protocol, requests
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.errors import Conflict, NotFound, Unprocessable
from shared.object_store import ObjectStore
from shared.outbox import emit
from shared.pages import cursor_after, fitting
from shared.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, repr=False)
class RunsService:
    """The half of catalog that keeps runs."""

    db: asyncpg.Pool
    objects: ObjectStore
    bus: Bus
    limits: domain.Limits

    # Requests

    async def record_requested_run(self, event: RunRequested) -> None:
        """Record the run that somebody asks for, or say why there is none."""
        run_id = run_id_for(event.pipeline, event.dedupe_key or str(event.event_id))
        if await requests.find_request(self.db, run_id) is not None:
            return
        try:
            pins, unfit = await self._draft_pins(event), None
        except Unprocessable as error:
            pins, unfit = None, domain.Rejection(RejectionReason.INVALID, error.message)
        async with transaction(self.db) as db:
            pipeline = await pipelines.lock_pipeline(db, event.pipeline)
            state = await pipelines.pipeline_state(db, pipeline, event.pipeline_id) if pipeline else None
            why_not = domain.rejection(event, state) or unfit
            pipeline_id = pipeline.id if pipeline else None
            if not await requests.claim_request(
                db, run_id, event, pipeline_id=pipeline_id, body_hash=None, rejection=why_not
            ):
                return
            if why_not is not None:
                await emit(db, messages.rejected(run_id, event, why_not))
            elif pipeline is not None:
                await self._record(db, run_id, event, pipeline, pins)

    async def request_run(self, query: RequestRun) -> RunAccepted:
        """Record a run and answer when it is recorded."""
        request = query.request
        run_id = _run_id(request, query.idempotency_key)
        body_hash = _body_hash(request) if query.idempotency_key else None
        if (known := await requests.find_request(self.db, run_id)) is not None:
            return await self._answer_known(known, body_hash)
        return await self._accept(run_id, request, body_hash, await self._draft_pins(request))

    async def retry_run(self, query: RetryRun) -> RunAccepted:
        """Record a new run of what an ended one ran."""
        run = await protocol.find(self.db, query.run_id)
        if run is None:
            raise NotFound(f"there is no run {query.run_id}")
        if not run.state.status.is_terminal:
            raise Conflict(f"run {query.run_id} has not ended: it is {run.state.status}")
        version, pins = run.code
        request = RunRequested(
            pipeline=run.pipeline,
            trigger=domain.MANUAL,
            parameters=dict(run.parameters),
            dry_run=run.dry_run,
            version=version,
            pipeline_id=run.pipeline_id,
        )
        run_id = _run_id(request, query.idempotency_key)
        body_hash = _body_hash(request, retry_of=run.id) if query.idempotency_key else None
        if (known := await requests.find_request(self.db, run_id)) is not None:
            return await self._answer_known(known, body_hash)
        if version is not None:
            return await self._accept(run_id, request, body_hash, None)
        if pins:
            return await self._accept(run_id, request, body_hash, pins, retry_of=run.id)
        # It never came so far that anything was pinned.
        return await self._accept(run_id, request, body_hash, await self._draft_pins(request))

    async def _accept(
        self,
        run_id: UUID,
        request: RunRequested,
        body_hash: str | None,
        pins: Mapping[str, str] | None,
        retry_of: UUID | None = None,
    ) -> RunAccepted:
        async with transaction(self.db) as db:
            pipeline = await pipelines.lock_pipeline(db, request.pipeline)
            if pipeline is None:
                raise NotFound(f"there is no pipeline {request.pipeline!r}")
            state = await pipelines.pipeline_state(db, pipeline, request.pipeline_id)
            why_not = domain.rejection(request, state)
            if why_not is not None:
                raise Conflict(why_not.message, details={"reason": why_not.reason})
            if request.version is not None and await pipelines.version_pins(db, pipeline.id, request.version) is None:
                raise NotFound(f"{request.pipeline!r} has no version {request.version}")
            if await requests.claim_request(
                db, run_id, request, pipeline_id=pipeline.id, body_hash=body_hash, rejection=None
            ):
                await self._record(db, run_id, request, pipeline, pins, retry_of)
                return RunAccepted(run_id=run_id, status=RunStatus.PENDING)
        known = await requests.find_request(self.db, run_id)
        assert known is not None, "another replica has just recorded it"
        return await self._answer_known(known, body_hash)

    async def _answer_known(self, known: requests.KnownRequest, body_hash: str | None) -> RunAccepted:
        if body_hash != known.body_hash:
            raise Conflict("this Idempotency-Key was used for another request")
        if known.rejection is not None:
            raise Conflict(known.message or known.rejection, details={"reason": known.rejection})
        run = await protocol.find(self.db, known.run_id)
        status = known.terminal_status or (run.state.status if run else RunStatus.PENDING)
        return RunAccepted(run_id=known.run_id, status=status)

    async def _draft_pins(self, request: RunRequested) -> Mapping[str, str] | None:
        """The draft as it is when its run is asked for; only a manual run may take it."""
        if request.trigger != domain.MANUAL or request.version is not None:
            return None
        if await pipelines.is_published(self.db, request.pipeline):
            return None
        return await draft_pins(self.objects, Qualified.parse(request.pipeline).folder)

    async def _record(
        self,
        db: Connection,
        run_id: UUID,
        request: RunRequested,
        pipeline: pipelines.LockedPipeline,
        pins: Mapping[str, str] | None,
        retry_of: UUID | None = None,
    ) -> None:
        now = utc_now()
        await requests.insert_run(
            db, run_id, request, pipeline_id=pipeline.id, draft_pins=pins, retry_of=retry_of, now=now
        )
        await self._queue_next(db, pipeline, now)

    async def _queue_next(self, db: Connection, pipeline: pipelines.LockedPipeline, now: datetime) -> None:
        """Queue the oldest run that waits for its locked pipeline; one that cannot be pinned ends instead."""
        while (waiting := await requests.oldest_waiting(db, pipeline.id)) is not None:
            version, pins = await self._pins_of(db, pipeline, waiting)
            if pins:
                run = await protocol.queue(db, waiting.id, pins=pins, version=version, now=now)
                await emit(db, messages.queued(run, run.state.queue_number))
                return
            await self._end_unqueued(db, waiting, version, now)

    async def _pins_of(
        self, db: Connection, pipeline: pipelines.LockedPipeline, waiting: requests.WaitingRun
    ) -> tuple[int | None, Mapping[str, str] | None]:
        if waiting.wanted_version is not None:
            return waiting.wanted_version, await pipelines.version_pins(db, pipeline.id, waiting.wanted_version)
        if pipeline.pins and waiting.retry_of is None:
            return pipeline.version, pipeline.pins
        return None, waiting.draft_pins

    async def _end_unqueued(
        self, db: Connection, waiting: requests.WaitingRun, version: int | None, now: datetime
    ) -> None:
        what = f"version {version} is not kept any more" if version is not None else "the pipeline has no files"
        run = await protocol.find(db, waiting.id)
        assert run is not None, "it waits"
        await self._end(
            db,
            run,
            AttemptFinished(
                run_id=run.id,
                attempt=0,
                status=RunStatus.FAILED,
                error=f"nothing to run: {what}",
                error_kind=ErrorKind.COMPILE,
            ),
            None,
            now,
        )

    # Claims

    async def give_attempt(self, query: ClaimRun) -> Claimed:
        """Give a runner the next attempt of a run, tell it to end the run, or send it away."""
        now = utc_now()
        async with transaction(self.db) as db:
            run = await protocol.lock(db, query.run_id)
            if run is None:
                return Claimed(claim=Over())
            claim = domain.Claim(
                queue_number=query.queue_number,
                reason=query.reason,
                follows=query.follows,
                head=query.head,
                answered_with=await protocol.attempt_of_claim(db, run.id, query.delivery),
            )
            match domain.judge_claim(run.state, claim, now, self.limits):
                case domain.GiveAttempt(state, is_new):
                    if is_new:
                        await self._begin_attempt(db, run, state, query.delivery, now)
                    return Claimed(claim=messages.attempt(run, state))
                case domain.OrderEnd(state, ending):
                    await protocol.save(db, run.id, state)
                    return Claimed(claim=messages.end_order(run, state, ending))
                case domain.RefuseOver():
                    return Claimed(claim=Over())
                case domain.RefuseSuperseded():
                    return Claimed(claim=Superseded())

    async def _begin_attempt(
        self, db: Connection, run: protocol.StoredRun, state: domain.RunState, claim: str, now: datetime
    ) -> None:
        await protocol.save(db, run.id, state)
        await protocol.keep_claim(db, run.id, claim, state.attempt, now)
        if state.attempt > 1:
            await protocol.forget_phases(db, run.id)
        await emit(
            db,
            RunStarted(
                event_id=derived_id("run.started", run.id, state.attempt),
                occurred_at=now,
                run_id=run.id,
                pipeline=run.pipeline,
                attempt=state.attempt,
                trigger=run.trigger,
                started_at=run.started_at or now,
            ),
        )

    async def check_attempt(self, query: CheckAttempt) -> AttemptState:
        """Say whether an attempt is still the newest of its run, and the run still wanted."""
        run = await protocol.find(self.db, query.run_id)
        if run is None:
            return AttemptState(is_newest=False, is_wanted=False)
        return AttemptState(is_newest=domain.is_newest(run.state, query.attempt), is_wanted=domain.is_wanted(run.state))

    async def note_progress(self, event: RunProgressed) -> None:
        """Note that an attempt is alive, and which phase of it is done."""
        await protocol.note_progress(self.db, event.run_id, event.attempt, event.phase, utc_now())

    # Ends

    async def end_run(self, event: AttemptFinished) -> None:
        """End a run as its attempt did, say so, and let the pipeline's next run start."""
        report = await self._report(event)
        now = utc_now()
        async with transaction(self.db) as db:
            pipeline = await pipelines.lock_pipeline_of(db, event.run_id)
            if pipeline is None:
                return
            run = await protocol.lock(db, event.run_id)
            assert run is not None, "its pipeline was found by it"
            if not domain.counts(
                run.state, attempt=event.attempt, status=event.status, is_on_main=event.merged_at is not None
            ):
                log.info("end of a superseded attempt", run_id=str(run.id), attempt=event.attempt, status=event.status)
                return
            await self._end(db, run, event, report, now)
            await self._queue_next(db, pipeline, now)

    async def _report(self, event: AttemptFinished) -> AttemptReport | None:
        if event.report is not None:
            return AttemptReport.model_validate_json(event.report)
        if event.report_key is None:
            return None
        try:
            return AttemptReport.model_validate_json(await self.objects.get(event.report_key))
        except (NotFound, ValidationError) as error:
            # How the run ended is in the event: nobody has to wait for the rest of it.
            log.warning(
                "the report of an attempt cannot be read",
                run_id=str(event.run_id),
                key=event.report_key,
                error=type(error).__name__,
            )
            return None

    async def _end(
        self,
        db: Connection,
        run: protocol.StoredRun,
        end: AttemptFinished,
        report: AttemptReport | None,
        now: datetime,
    ) -> None:
        """Move a locked run to its terminal state and say what follows from it."""
        if not await ends.finish(db, run.id, end, report, now):
            return
        if report is not None and report.quality:
            await ends.insert_quality_results(db, run.id, run.pipeline_id, report, now)
        await emit(db, messages.finished(run, end, now), *messages.changed_tables(run, end, now))

    # Cancelling

    async def cancel_run(self, query: CancelRun) -> RunAccepted:
        """End a run that no runner has, and tell the runner of any other that it is not wanted."""
        run = await protocol.find(self.db, query.run_id)
        if run is None:
            raise NotFound(f"there is no run {query.run_id}")
        now = utc_now()
        async with transaction(self.db) as db:
            pipeline = await pipelines.lock_pipeline_by_id(db, run.pipeline_id)
            status = await self._cancel(db, run.id, now)
            await self._queue_next(db, pipeline, now)
        if status is RunStatus.RUNNING:
            await self.bus.publish(RunCancel(run_id=run.id))
        return RunAccepted(run_id=run.id, status=status)

    async def cancel_runs_of(self, db: Connection, pipeline_id: UUID) -> None:
        """End the runs of a pipeline that is being removed, in the transaction that removes it."""
        await pipelines.lock_pipeline_by_id(db, pipeline_id)
        now = utc_now()
        for run_id in await ends.open_runs(db, pipeline_id):
            await self._cancel(db, run_id, now)

    async def _cancel(self, db: Connection, run_id: UUID, now: datetime) -> RunStatus:
        run = await protocol.lock(db, run_id)
        assert run is not None, "it was found before, and runs with an open end are not deleted"
        if run.state.status.is_terminal:
            raise Conflict(f"run {run_id} has ended as {run.state.status}")
        if not domain.can_be_cancelled_at_once(run.state):
            await ends.request_cancel(db, run_id, now)
            return RunStatus.RUNNING
        await self._end(
            db,
            run,
            AttemptFinished(
                run_id=run_id,
                attempt=0,
                status=RunStatus.CANCELLED,
                error="cancelled on request",
                error_kind=ErrorKind.CANCELLED,
            ),
            None,
            now,
        )
        return RunStatus.CANCELLED

    async def repeat_cancels(self) -> None:
        """Tell the runners again which runs are not wanted."""
        for run_id in await ends.unwanted_runs(self.db):
            await self.bus.publish(RunCancel(run_id=run_id))

    # Silence

    async def queue_silent_runs_again(self) -> None:
        """Offer the runs of lost runners, and of lost messages, to other runners."""
        now = utc_now()
        suspects = await protocol.silent_runs(
            self.db, silent_since=now - self.limits.silence, unclaimed_since=now - self.limits.unclaimed
        )
        for run_id in suspects:
            async with transaction(self.db) as db:
                run = await protocol.lock(db, run_id)
                if run is not None and domain.is_to_be_queued_again(run.state, now, self.limits):
                    state = domain.queued(run.state, now)
                    await protocol.save(db, run.id, state)
                    await emit(db, messages.queued(run, state.queue_number))
                    log.warning("silent run queued again", run_id=str(run.id), attempt=state.attempt)

    # Questions

    async def find_run_outcome(self, query: FindRunOutcome) -> RunOutcome:
        """Say what has become of a requested run, however long ago."""
        known = await requests.find_request(self.db, query.run_id)
        if known is None:
            return RunOutcome(status=None, is_known=False)
        if known.rejection is not None:
            return RunOutcome(status=None, is_known=True, is_rejected=True, pipeline_id=known.pipeline_id)
        run = None if known.terminal_status else await protocol.find(self.db, query.run_id)
        return RunOutcome(
            status=known.terminal_status or (run.state.status if run else None),
            is_known=True,
            dry_run=known.dry_run,
            pipeline_id=known.pipeline_id,
        )

    async def list_runs(self, query: ListRuns) -> Runs:
        """List runs."""
        total = await lists.count(self.db, query)
        page = fitting([messages.shown(row, []) for row in await lists.page(self.db, query)])
        return Runs(runs=page, total=total, next_cursor=cursor_after(query, page, total))

    async def find_run(self, query: FindRun) -> Run:
        """Show one run with how its tests judged it."""
        row = await lists.show(self.db, query.run_id)
        if row is None:
            raise NotFound(f"there is no run {query.run_id}")
        return messages.shown(row, await lists.results_of_run(self.db, query.run_id))

    async def address_run_logs(self, query: AddressRunLogs) -> RunLogs:
        """Say where the log of a run can be read."""
        row = await lists.logs_of_run(self.db, query.run_id)
        if row is None:
            raise NotFound(f"there is no run {query.run_id}")
        key = row["logs_s3_path"]
        return RunLogs(
            status=row["status"],
            url=await self.objects.presign_get(key, timedelta(hours=1)) if key else None,
            last_lines=row["logs"],
        )


def limits(settings: Settings) -> domain.Limits:
    """How long catalog is patient, as an operator has set it."""
    return domain.Limits(
        outage=timedelta(seconds=settings.run_outage_limit_seconds),
        silence=timedelta(seconds=settings.run_silence_seconds),
        unclaimed=timedelta(minutes=settings.stuck_run_timeout_minutes),
    )


def wire(bus: Bus, runs: RunsService) -> None:
    """Register what catalog hears, says and answers about runs."""
    bus.hear(RunRequested, runs.record_requested_run)
    bus.hear(AttemptFinished, runs.end_run)
    bus.hear(RunProgressed, runs.note_progress)
    bus.answer(RequestRun, runs.request_run)
    bus.answer(RetryRun, runs.retry_run)
    bus.answer(ClaimRun, runs.give_attempt)
    bus.answer(CheckAttempt, runs.check_attempt)
    bus.answer(CancelRun, runs.cancel_run)
    bus.answer(FindRunOutcome, runs.find_run_outcome)
    bus.answer(ListRuns, runs.list_runs)
    bus.answer(FindRun, runs.find_run)
    bus.answer(AddressRunLogs, runs.address_run_logs)
    bus.say(RunQueued, RunStarted, RunFinished, RunRejected, RunCancel, TableChanged)


def _run_id(request: RunRequested, idempotency_key: str | None) -> UUID:
    key = f"idempotency:{idempotency_key}" if idempotency_key else request.dedupe_key
    return run_id_for(request.pipeline, key or str(request.event_id))


def _body_hash(request: RunRequested, *, retry_of: UUID | None = None) -> str:
    body = request.model_dump(mode="json", exclude={"event_id", "occurred_at", "dedupe_key"})
    if retry_of is not None:
        body["retry_of"] = str(retry_of)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
