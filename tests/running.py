"""What the runner meets, for its tests: catalog and ingest on the bus, the bucket, and the lakehouse."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from nats.aio.msg import Msg

from contracts.landing import (
    CheckFiles,
    ClaimedFile,
    ClaimedFiles,
    ClaimFiles,
    FilesChecked,
    FileState,
    FindZone,
    LandingFile,
    LandingFiles,
    ListFiles,
    ListSamples,
    ListZones,
    Sample,
    Samples,
    Zone,
    Zones,
)
from contracts.maintenance import ClaimUpkeep, EndUpkeep, UpkeepClaimed
from contracts.messages import Query, utc_now
from contracts.names import Qualified
from contracts.pipelines import DraftPins, PinDraft
from contracts.previews import Preview, PreviewPipeline, RunTests, Sent, Verdicts
from contracts.reports import AttemptReport
from contracts.runs import (
    Attempt,
    AttemptFinished,
    AttemptState,
    CheckAttempt,
    Claimed,
    ClaimRun,
    EndRun,
    LogWritten,
    Over,
    PinnedFile,
    RunCancel,
    RunProgressed,
    RunQueued,
    Superseded,
)
from services.catalog.runs import domain
from shared.bus import Bus
from shared.chunks import asking
from shared.duckdb_engine import connect as connect_duckdb
from shared.errors import NotFound
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.port import Lakehouse
from shared.object_store import ObjectStore, object_store
from shared.settings import Settings
from tests.buses import playing
from tests.outside import nats_client
from tests.waiting import eventually
from tests.zones import zone

LIMITS = domain.Limits(outage=timedelta(hours=1), silence=timedelta(minutes=2), unclaimed=timedelta(hours=2))


@dataclass
class RunOf:
    """A run as the test's catalog and ingest know it."""

    id: UUID
    pipeline: str
    pipeline_id: UUID
    files: list[PinnedFile]
    dry_run: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    state: domain.RunState = field(default_factory=lambda: domain.RunState(queue_number=1))
    claims: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    ended: AttemptFinished | None = None
    """The end that counted."""
    ends: list[AttemptFinished] = field(default_factory=list)
    progress: list[RunProgressed] = field(default_factory=list)
    log: list[LogWritten] = field(default_factory=list)
    checks: list[Literal["unchanged", "changed", "over"]] = field(default_factory=list)
    """What ingest answers next, and `unchanged` after that."""


@dataclass
class Surroundings:
    """Everybody that a runner deals with."""

    settings: Settings
    bus: Bus
    ingest: Bus
    gateway: Bus
    code: ObjectStore
    bucket: ObjectStore
    tables: Lakehouse
    runs: dict[UUID, RunOf] = field(default_factory=dict)
    zones: dict[str, list[ClaimedFile]] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    drafts: dict[str, list[PinnedFile]] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    """Names of files that are in a zone, but do not fit it."""
    asked_files: set[UUID] = field(default_factory=set)
    """The runs whose process has asked for the files of a zone."""
    not_yet: int = 0
    """How often ingest says `not_yet` before it answers."""
    before_check: Any = None
    """Called with each `CheckAttempt` before it is answered."""
    when_changed: Any = None
    """Called before ingest says that files have changed."""
    under_way: UUID | None = None
    """The run that is under way of any table that a runner wants to look after."""
    upkeep_claims: list[ClaimUpkeep] = field(default_factory=list)
    upkeep_ends: list[EndUpkeep] = field(default_factory=list)

    # What the test does

    async def request(
        self,
        code: str,
        *,
        path: str = "pipeline.sql",
        pipeline: str | None = None,
        pipeline_id: UUID | None = None,
        tests: dict[str, str] | None = None,
        config: str | None = None,
        **facts: Any,
    ) -> RunOf:
        """Queue a run of a pipeline with this code."""
        name = pipeline or table_name()
        texts = {path: code} | {f"tests/quality/{test}.sql": text for test, text in (tests or {}).items()}
        if config is not None:
            texts["config.yaml"] = config
        folder = Qualified.parse(name).folder
        files = [
            PinnedFile(path=path, version_id=(await self.code.put(folder + path, text.encode())).version_id or "")
            for path, text in texts.items()
        ]
        run = RunOf(uuid4(), name, pipeline_id or uuid4(), files, **facts)
        self.runs[run.id] = run
        await self.queue(run)
        return run

    async def draft(self, files: dict[str, str], *, pipeline: str | None = None) -> str:
        """Keep a pipeline's draft, of which there is no run, and say its name."""
        name = pipeline or table_name()
        folder = Qualified.parse(name).folder
        self.drafts[name] = [
            PinnedFile(path=path, version_id=(await self.code.put(folder + path, text.encode())).version_id or "")
            for path, text in files.items()
        ]
        return name

    async def preview(self, pipeline: str, **asked: Any) -> Preview:
        """What a preview of a draft gives."""
        answer = await self._asked(
            lambda inbox: PreviewPipeline.model_validate({"pipeline": pipeline, "inbox": inbox, **asked})
        )
        return Preview.model_validate_json(answer)

    async def judge_main(self, pipeline: str) -> Verdicts:
        """How the tests of a draft judge main."""
        answer = await self._asked(lambda inbox: RunTests(pipeline=pipeline, inbox=inbox))
        return Verdicts.model_validate_json(answer)

    async def _asked(self, query: Callable[[str], Query[Sent]]) -> bytes:
        async with asking(self.gateway, query) as answer:
            return b"".join([chunk async for chunk in answer])

    async def queue(self, run: RunOf) -> None:
        await self.bus.publish(
            RunQueued(
                run_id=run.id,
                pipeline=run.pipeline,
                pipeline_id=run.pipeline_id,
                trigger="manual",
                queue_number=run.state.queue_number,
            )
        )

    async def finished(self, run: RunOf, within: float = 60) -> AttemptFinished:
        """Wait for the end of a run."""
        return await eventually(lambda: run.ended, within=within)

    async def cancel(self, run: RunOf) -> None:
        run.state = domain.replace(run.state, cancel_requested=True)
        await self.bus.publish(RunCancel(run_id=run.id))

    async def put_sample(self, zone: str, filename: str, content: str) -> None:
        stored = await self.bucket.put(f"default/landing/{zone}/_samples/{filename}", content.encode())
        sample = Sample(path=filename, size=len(content), modified=utc_now(), type="csv")
        assert stored.version_id is not None
        self.samples.setdefault(zone, []).append(sample)

    async def upload(self, zone: str, filename: str, content: str | bytes) -> None:
        content = content.encode() if isinstance(content, str) else content
        key = f"default/landing/{zone}/{filename}"
        stored = await self.bucket.put(key, content)
        self.zones.setdefault(zone, []).append(
            ClaimedFile(
                file_id=uuid4(),
                filename=filename,
                key=key,
                version_id=stored.version_id or "",
                size_bytes=len(content),
            )
        )

    async def rows(self, table: str, sql: str = "select * from t") -> list[tuple[Any, ...]]:
        """The rows that a query finds in `t`, the table on main."""
        location = await self.tables.location(Qualified.parse(table))
        if location is None:
            raise NotFound(f"no table {table}")
        with connect_duckdb(self.settings, "runner") as connection:
            rows: list[tuple[Any, ...]] = connection.execute(
                f"with t as (from iceberg_scan('{location}')) {sql}"
            ).fetchall()
        return rows

    async def report(self, run: RunOf) -> AttemptReport:
        assert run.ended is not None
        assert run.ended.report_key is not None
        return AttemptReport.model_validate_json(await self.code.get(run.ended.report_key))

    async def merges(self, run: RunOf) -> int:
        """How often a run is in the log of merges."""
        history = await self.tables.history(Qualified.parse(run.pipeline), 100)
        return sum(change.run_id == run.id for change in history)

    async def open_branches(self, run: RunOf) -> list[str]:
        return [b.name for b in await self.tables.branches(f"run-{run.id}-") if b.closed_at is None]

    # What catalog does

    async def claim(self, query: ClaimRun) -> Claimed:
        run = self.runs.get(query.run_id)
        if run is None:
            return Claimed(claim=Over())
        claim = domain.Claim(
            queue_number=query.queue_number,
            reason=query.reason,
            follows=query.follows,
            head=query.head,
            answered_with=run.claims.get(query.delivery),
        )
        match domain.judge_claim(run.state, claim, utc_now(), LIMITS):
            case domain.GiveAttempt(state, is_new):
                run.state = state
                run.claims[query.delivery] = state.attempt
                if is_new:
                    run.reasons.append(query.reason)
                return Claimed(claim=self._attempt(run))
            case domain.OrderEnd(state, ending):
                run.state = state
                return Claimed(
                    claim=EndRun(
                        run_id=run.id,
                        attempt=state.attempt,
                        pipeline=run.pipeline,
                        pipeline_id=run.pipeline_id,
                        dry_run=run.dry_run,
                        head=state.head or "0",
                        status=ending.status,
                        error=ending.error,
                        error_kind=ending.kind,
                    )
                )
            case domain.RefuseOver():
                return Claimed(claim=Over())
            case domain.RefuseSuperseded():
                return Claimed(claim=Superseded())

    def _attempt(self, run: RunOf) -> Attempt:
        return Attempt(
            run_id=run.id,
            attempt=run.state.attempt,
            pipeline=run.pipeline,
            pipeline_id=run.pipeline_id,
            version=None,
            trigger="manual",
            files=run.files,
            parameters=run.parameters,
            dry_run=run.dry_run,
            head=run.state.head or "0",
            retries=run.state.retries,
            conflicts=run.state.conflicts,
            file_changes=run.state.file_changes,
        )

    async def check_attempt(self, query: CheckAttempt) -> AttemptState:
        if self.before_check is not None:
            await self.before_check(query)
        if query.run_id not in self.runs:
            return AttemptState(is_newest=False, is_wanted=False)
        state = self.runs[query.run_id].state
        return AttemptState(is_newest=domain.is_newest(state, query.attempt), is_wanted=domain.is_wanted(state))

    async def end(self, event: AttemptFinished) -> None:
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.ends.append(event)
        if domain.counts(run.state, attempt=event.attempt, status=event.status, is_on_main=event.merged_at is not None):
            run.state = domain.replace(run.state, status=event.status)
            run.ended = event

    async def note_progress(self, event: RunProgressed) -> None:
        if event.run_id in self.runs:
            self.runs[event.run_id].progress.append(event)

    async def note_line(self, event: LogWritten) -> None:
        if event.run_id in self.runs:
            self.runs[event.run_id].log.append(event)

    async def pin_draft(self, query: PinDraft) -> DraftPins:
        if query.pipeline not in self.drafts:
            raise NotFound(f"there is no pipeline {query.pipeline!r}")
        return DraftPins(pipeline_id=uuid4(), files=self.drafts[query.pipeline])

    async def claim_upkeep(self, query: ClaimUpkeep) -> UpkeepClaimed:
        self.upkeep_claims.append(query)
        return UpkeepClaimed(is_granted=True, run_under_way=self.under_way)

    async def end_upkeep(self, query: EndUpkeep) -> None:
        self.upkeep_ends.append(query)

    # What ingest does

    async def find_zone(self, query: FindZone) -> Zone:
        if query.name not in self.zones:
            raise NotFound(f"no landing zone {query.namespace}/{query.name}")
        return zone(query.namespace, query.name, expected_schema=self.schemas.get(query.name, ""))

    async def list_samples(self, query: ListSamples) -> Samples:
        found = self.samples.get(query.zone, [])
        return Samples(files=found, total=len(found))

    async def list_files(self, query: ListFiles) -> LandingFiles:
        found = [
            LandingFile(
                id=file.file_id,
                zone_id=uuid4(),
                filename=file.filename,
                s3_path=file.key,
                size_bytes=file.size_bytes,
                content_type=None,
                etag="e",
                state=FileState.REJECTED if file.filename in self.rejected else FileState.LANDED,
                reason=None,
                processed_by=None,
                uploaded_by=None,
                uploaded_at=utc_now(),
            )
            for file in self.zones[query.zone]
        ]
        return LandingFiles(files=found, total=len(found))

    async def claim_files(self, query: ClaimFiles) -> ClaimedFiles:
        self.asked_files.add(query.run_id)
        if self.not_yet:
            self.not_yet -= 1
            return ClaimedFiles(state="not_yet")
        if query.zone not in self.zones:
            raise NotFound(f"no landing zone {query.namespace}/{query.zone}")
        files = self.zones[query.zone]
        start = int(query.cursor or 0)
        following = str(start + 2) if start + 2 < len(files) else None
        return ClaimedFiles(
            state="ready",
            files=files[start : start + 2],
            next_cursor=following,
            expected_schema=self.schemas.get(query.zone, ""),
        )

    async def list_zones(self, query: ListZones) -> Zones:
        zones = [
            zone("default", name, expected_schema=self.schemas.get(name, ""), file_count=len(files))
            for name, files in self.zones.items()
        ]
        return Zones(zones=zones, total=len(zones))

    async def check_files(self, query: CheckFiles) -> FilesChecked:
        checks = self.runs[query.run_id].checks
        state = checks.pop(0) if checks else "unchanged"
        if state == "changed" and self.when_changed is not None:
            await self.when_changed()
        return FilesChecked(state=state, changed=["some/key"] if state == "changed" else [])


def table_name() -> str:
    """The name of a pipeline that no other test uses."""
    return f"default.bronze.t_{uuid4().hex[:8]}"


@asynccontextmanager
async def surroundings(settings: Settings) -> AsyncIterator[Surroundings]:
    """Be catalog and ingest for a runner."""
    catalog, ingest, gateway = (playing(settings, name) for name in ("catalog", "ingest", "gateway"))
    async with (
        object_store(settings, "catalog") as code,
        object_store(settings, "ingest") as bucket,
        lakehouse(settings, "runner") as tables,
    ):
        around = Surroundings(settings, catalog, ingest, gateway, code, bucket, tables)
        catalog.answer(ClaimRun, around.claim)
        catalog.answer(CheckAttempt, around.check_attempt)
        catalog.answer(ClaimUpkeep, around.claim_upkeep)
        catalog.answer(EndUpkeep, around.end_upkeep)
        catalog.hear(AttemptFinished, around.end)
        catalog.hear(RunProgressed, around.note_progress)
        ingest.answer(ClaimFiles, around.claim_files)
        ingest.answer(CheckFiles, around.check_files)
        ingest.answer(ListZones, around.list_zones)
        catalog.answer(PinDraft, around.pin_draft)
        ingest.answer(FindZone, around.find_zone)
        ingest.answer(ListSamples, around.list_samples)
        ingest.answer(ListFiles, around.list_files)
        async with catalog.running(), ingest.running(), gateway.running(), _logs_heard(around):
            yield around


@asynccontextmanager
async def _logs_heard(around: Surroundings) -> AsyncIterator[None]:
    """Hear the lines of all runs' logs as they are said."""
    client = await nats_client(around.settings)

    async def note(message: Msg) -> None:
        await around.note_line(LogWritten.model_validate_json(message.data))

    try:
        await client.subscribe(LogWritten.subject, cb=note)
        yield
    finally:
        await client.close()
