"""What the other services and users say to trigger and scheduler, for their tests."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

from nats.js.api import DeliverPolicy

from contracts.landing import FileLanded, FindZone, Zone
from contracts.messages import Event, utc_now
from contracts.pipelines import FindPipeline, Pipeline, PipelineRemoved, PipelineType
from contracts.runs import (
    FindRunOutcome,
    RejectionReason,
    RunFinished,
    RunOutcome,
    RunRejected,
    RunRequested,
    RunStatus,
    run_id_for,
)
from contracts.triggers import TriggerDecided
from shared.bus import Bus
from shared.errors import NotFound
from shared.settings import Settings
from tests.buses import playing
from tests.outside import nats_client
from tests.waiting import eventually

E = TypeVar("E", bound=Event)


@dataclass
class Neighbours:
    """Catalog, ingest and the gateway, as far as trigger and scheduler meet them."""

    catalog: Bus
    ingest: Bus
    gateway: Bus
    pipelines: dict[str, UUID] = field(default_factory=dict)
    zones: set[str] = field(default_factory=set)
    outcomes: dict[UUID, RunOutcome] = field(default_factory=dict)
    asked_outcomes: list[UUID] = field(default_factory=list)
    heard: list[Event] = field(default_factory=list)

    # What exists

    def pipeline(self, layer: str = "bronze") -> str:
        name = f"default.{layer}.p_{uuid4().hex[:8]}"
        self.pipelines[name] = uuid4()
        return name

    def zone(self) -> str:
        name = f"z_{uuid4().hex[:8]}"
        self.zones.add(name)
        return name

    # What happens

    async def land(self, zone: str, *, event_id: UUID | None = None) -> FileLanded:
        file_id = uuid4()
        landed = FileLanded(
            event_id=event_id or uuid4(),
            namespace="default",
            zone=zone,
            zone_id=uuid4(),
            file_id=file_id,
            filename=f"{file_id}.csv",
            key=f"default/landing/{zone}/{file_id}.csv",
            size_bytes=10,
            etag="e",
            version_id="v",
        )
        await self.ingest.publish(landed)
        return landed

    async def finish(
        self, run_id: UUID, pipeline: str, status: RunStatus = RunStatus.SUCCESS, *, dry_run: bool = False
    ) -> RunFinished:
        finished = RunFinished(
            run_id=run_id,
            pipeline=pipeline,
            pipeline_id=self.pipelines[pipeline],
            trigger="manual",
            status=status,
            attempt=1,
            finished_at=utc_now(),
            dry_run=dry_run,
        )
        await self.catalog.publish(finished)
        return finished

    async def reject(self, request: RunRequested, reason: RejectionReason) -> None:
        await self.catalog.publish(
            RunRejected(
                run_id=run_of(request),
                pipeline=request.pipeline,
                trigger=request.trigger,
                reason=reason,
                message=f"{request.pipeline} is refused",
                asked_by=request.asked_by,
                pipeline_id=request.pipeline_id,
            )
        )

    async def remove(self, pipeline: str) -> None:
        await self.catalog.publish(PipelineRemoved(pipeline=pipeline, pipeline_id=self.pipelines[pipeline]))

    # What is said about it

    def requests(self, pipeline: str) -> list[RunRequested]:
        return [event for event in self.heard if isinstance(event, RunRequested) and event.pipeline == pipeline]

    def decisions(self, pipeline: str) -> list[TriggerDecided]:
        return [event for event in self.heard if isinstance(event, TriggerDecided) and event.pipeline == pipeline]

    async def requested(self, pipeline: str, count: int, within: float = 60) -> list[RunRequested]:
        """The requests for runs of a pipeline, once there are so many."""

        def enough() -> list[RunRequested] | None:
            found = self.requests(pipeline)
            return found if len(found) >= count else None

        found = await eventually(enough, within=within)
        assert len(found) == count
        return found

    async def decided(self, pipeline: str, count: int, within: float = 60) -> list[TriggerDecided]:
        """What the triggers of a pipeline decided, once they decided so often."""

        def enough() -> list[TriggerDecided] | None:
            found = self.decisions(pipeline)
            return found if len(found) >= count else None

        return await eventually(enough, within=within)


def run_of(request: RunRequested) -> UUID:
    """The id of the run that a request asks for."""
    return run_id_for(request.pipeline, request.dedupe_key or str(request.event_id))


@asynccontextmanager
async def neighbours(settings: Settings) -> AsyncIterator[Neighbours]:
    """Everybody whom trigger and scheduler talk to, on the real bus."""
    they = Neighbours(*(playing(settings, name) for name in ("catalog", "ingest", "gateway")))

    async def find_pipeline(query: FindPipeline) -> Pipeline:
        if query.pipeline not in they.pipelines:
            raise NotFound(f"no pipeline {query.pipeline!r}")
        namespace, layer, name = query.pipeline.split(".")
        return Pipeline(
            id=they.pipelines[query.pipeline],
            namespace=namespace,
            layer=layer,
            name=name,
            type=PipelineType.SQL,
            s3_path="",
            description="",
            owner=None,
            published_at=None,
            published_versions={},
            version=None,
            draft_dirty=True,
            max_versions=50,
            created_at=utc_now(),
            updated_at=utc_now(),
        )

    async def find_zone(query: FindZone) -> Zone:
        if query.name not in they.zones:
            raise NotFound(f"no landing zone {query.name!r} in namespace {query.namespace!r}")
        return Zone(
            id=uuid4(),
            namespace=query.namespace,
            name=query.name,
            description="",
            owner=None,
            expected_schema="",
            processed_max_age_days=None,
            auto_purge=False,
            file_count=0,
            total_bytes=0,
            created_at=utc_now(),
            updated_at=utc_now(),
        )

    async def find_outcome(query: FindRunOutcome) -> RunOutcome:
        they.asked_outcomes.append(query.run_id)
        return they.outcomes.get(query.run_id, RunOutcome(status=RunStatus.RUNNING, is_known=True))

    they.catalog.answer(FindPipeline, find_pipeline)
    they.catalog.answer(FindRunOutcome, find_outcome)
    they.ingest.answer(FindZone, find_zone)
    async with they.catalog.running(), they.ingest.running(), they.gateway.running(), _listening(settings, they.heard):
        yield they


@asynccontextmanager
async def _listening(settings: Settings, heard: list[Event]) -> AsyncIterator[None]:
    client = await nats_client(settings)
    try:
        for kind in (RunRequested, TriggerDecided):

            async def note(message: Any, kind: type[Event] = kind) -> None:
                heard.append(kind.model_validate(json.loads(message.data)))

            await client.jetstream().subscribe(kind.subject, cb=note, deliver_policy=DeliverPolicy.NEW)
        yield
    finally:
        await client.close()
