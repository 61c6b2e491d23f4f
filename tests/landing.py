"""What the other services and users say to ingest, for its tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from nats.aio.client import Client
from nats.js.api import DeliverPolicy

from contracts.landing import (
    CheckFiles,
    ClaimedFiles,
    ClaimFiles,
    CreateZone,
    FileProcessed,
    FilesChecked,
    FileState,
    FindZone,
    LandingFile,
    ListFiles,
    Zone,
    ZoneForm,
)
from contracts.messages import Event, utc_now
from contracts.namespaces import FindNamespace, FoundNamespace
from contracts.pipelines import PipelinePublished, ZoneReference
from contracts.runs import FindRunOutcome, RunFinished, RunOutcome, RunStatus
from shared.bus import Bus
from shared.errors import NotFound
from shared.object_store import ObjectStore, object_store
from shared.settings import Settings
from tests.buses import playing, playing_all
from tests.client import unique
from tests.hearing import heard_all
from tests.outside import nats_client
from tests.waiting import eventually


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, and its runs as catalog and runner speak of them."""

    name: str
    id: UUID = field(default_factory=uuid4)


@dataclass
class Neighbours:
    """Catalog, runner, gateway and an uploader, as far as ingest meets them."""

    settings: Settings
    catalog: Bus
    gateway: Bus
    runner: Bus
    bucket: ObjectStore
    namespaces: dict[str, UUID]
    outcomes: dict[UUID, RunOutcome]
    events: list[tuple[str, dict[str, Any]]]
    when_found: Callable[[], Awaitable[None]] | None = None
    """What happens once catalog has found a namespace, and before it says so."""

    # Users

    def namespace(self) -> str:
        """The name of a new namespace."""
        name = unique("ns")
        self.namespaces[name] = uuid4()
        return name

    async def zone(self, name: str = "orders", namespace: str = "default") -> Zone:
        return await self.gateway.ask(CreateZone(namespace=namespace, name=unique(name)))

    async def put(self, zone: Zone, filename: str, content: str = "id\n1\n") -> str:
        stored = await self.bucket.put(f"{zone.namespace}/landing/{zone.name}/{filename}", content.encode())
        assert stored.version_id is not None
        return stored.version_id

    async def remove(self, zone: Zone, filename: str) -> None:
        await self.bucket.delete(f"{zone.namespace}/landing/{zone.name}/{filename}")

    async def files(self, zone: Zone, state: FileState | None = None) -> dict[str, LandingFile]:
        """Filename → file; the newest first where names are the same."""
        page = await self.gateway.ask(ListFiles(namespace=zone.namespace, zone=zone.name, state=state, limit=200))
        return {file.filename: file for file in reversed(page.files)}

    async def landed(self, zone: Zone, *filenames: str) -> dict[str, LandingFile]:
        """The files of a zone, once it holds these."""

        async def held() -> dict[str, LandingFile] | None:
            files = await self.files(zone)
            return files if set(filenames) <= files.keys() else None

        return await eventually(held)

    async def file_of_size(self, zone: Zone, filename: str, size_bytes: int) -> LandingFile | None:
        """The file of this name, if it is this large: versions become known one after the other."""
        file = (await self.files(zone)).get(filename)
        return file if file is not None and file.size_bytes == size_bytes else None

    async def is_archived(self, zone: Zone, filename: str) -> bool:
        """Whether this file lies in the archive."""
        return "/_processed/" in (await self.files(zone))[filename].s3_path

    async def holds(self, zone: Zone, count: int, within: float = 60) -> Zone:
        """The zone, once it holds so many files."""

        async def filled() -> Zone | None:
            shown = await self.gateway.ask(FindZone(namespace=zone.namespace, name=zone.name))
            return shown if shown.file_count == count else None

        return await eventually(filled, within=within)

    # Catalog

    async def publish(self, pipeline: Pipeline, *zones: Zone, archives: bool = False, version: int = 1) -> None:
        """Publish a version, and wait until ingest has heard of it."""
        await self.catalog.publish(
            PipelinePublished(
                pipeline=pipeline.name,
                pipeline_id=pipeline.id,
                version=version,
                reads_zones=[ZoneReference(namespace=zone.namespace, zone=zone.name) for zone in zones],
                archives_files=archives,
            )
        )
        await heard_all(self.settings, "ingest", PipelinePublished)

    async def finish(
        self, run_id: UUID, pipeline: Pipeline, status: RunStatus = RunStatus.SUCCESS, *, dry_run: bool = False
    ) -> None:
        await self.catalog.publish(
            RunFinished(
                run_id=run_id,
                pipeline=pipeline.name,
                pipeline_id=pipeline.id,
                trigger="manual",
                status=status,
                attempt=1,
                finished_at=utc_now(),
                dry_run=dry_run,
            )
        )

    async def settled(self, run_id: UUID, pipeline: Pipeline, zone: Zone) -> None:
        """Wait until the end of a run was heard: whoever asks then is told so."""

        async def over() -> bool:
            return (await self.claim(run_id, pipeline, zone, attempt=99)).state == "over"

        await eventually(over)

    # Runner

    async def claim(
        self,
        run_id: UUID,
        pipeline: Pipeline,
        zone: Zone,
        form: ZoneForm = ZoneForm.NEW,
        *,
        attempt: int = 1,
        cursor: str | None = None,
    ) -> ClaimedFiles:
        return await self.runner.ask(
            ClaimFiles(
                run_id=run_id,
                attempt=attempt,
                pipeline=pipeline.name,
                pipeline_id=pipeline.id,
                namespace=zone.namespace,
                zone=zone.name,
                form=form,
                cursor=cursor,
            )
        )

    async def check(self, run_id: UUID, attempt: int = 1) -> FilesChecked:
        return await self.runner.ask(CheckFiles(run_id=run_id, attempt=attempt))

    async def reads(self, pipeline: Pipeline, zone: Zone, form: ZoneForm = ZoneForm.NEW) -> list[str]:
        """A whole good run: what it read."""
        run_id = uuid4()

        async def ready() -> ClaimedFiles | None:
            answer = await self.claim(run_id, pipeline, zone, form)
            return answer if answer.state == "ready" else None

        answer = await eventually(ready)
        await self.finish(run_id, pipeline)
        await self.settled(run_id, pipeline, zone)
        return [file.filename for file in answer.files]

    # What was said

    def said(self, event: type[Event], zone: Zone | None = None) -> list[dict[str, Any]]:
        return [
            content
            for subject, content in self.events
            if subject == event.subject and (zone is None or content.get("zone_id") == str(zone.id))
        ]


@asynccontextmanager
async def neighbours(settings: Settings) -> AsyncIterator[Neighbours]:
    """Everybody whom ingest talks to, on the real bus and bucket."""
    catalog, runner, gateway = playing(settings, "catalog"), playing(settings, "runner"), playing_all(settings)
    async with object_store(settings, "uploader") as bucket:
        they = Neighbours(settings, catalog, gateway, runner, bucket, {"default": uuid4()}, {}, [])

        async def find_namespace(query: FindNamespace) -> FoundNamespace:
            if query.name not in they.namespaces:
                raise NotFound(f"no namespace {query.name!r}")
            namespace_id = they.namespaces[query.name]
            if they.when_found is not None:
                await they.when_found()
            return FoundNamespace(
                id=namespace_id, name=query.name, description="", created_by=None, created_at=utc_now()
            )

        async def find_outcome(query: FindRunOutcome) -> RunOutcome:
            return they.outcomes.get(query.run_id, RunOutcome(status=RunStatus.RUNNING, is_known=True))

        catalog.answer(FindNamespace, find_namespace)
        catalog.answer(FindRunOutcome, find_outcome)
        async with catalog.running(), gateway.running(), runner.running(), _listening(settings, they.events):
            yield they


@asynccontextmanager
async def infra_client(settings: Settings) -> AsyncIterator[Client]:
    """A connection that may see and publish what the object store does."""
    client = await nats_client(settings)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _listening(settings: Settings, heard: list[tuple[str, dict[str, Any]]]) -> AsyncIterator[None]:
    async with infra_client(settings) as client:

        async def note(message: Any) -> None:
            heard.append((message.subject, json.loads(message.data)))

        for subject in ("file.landed", "file.processed"):
            await client.jetstream().subscribe(subject, cb=note, deliver_policy=DeliverPolicy.NEW)
        yield


async def put_many(they: Neighbours, zone: Zone, names: Iterable[str]) -> None:
    """Put files as a copying tool does, some at a time."""
    limit = asyncio.Semaphore(16)

    async def put(name: str) -> None:
        async with limit:
            await they.put(zone, name)

    await asyncio.gather(*(put(name) for name in names))


def orders() -> Pipeline:
    """A pipeline that nobody else has."""
    return Pipeline(f"default.bronze.{unique('orders')}")


async def zone_with(they: Neighbours, *filenames: str) -> Zone:
    """A new zone, once it holds these files."""
    zone = await they.zone()
    for filename in filenames:
        await they.put(zone, filename)
        await they.landed(zone, filename)
    return zone


async def keys(they: Neighbours, zone: Zone) -> set[str]:
    """What the bucket holds of a zone, all versions."""
    prefix = f"default/landing/{zone.name}/"
    return {found.key.removeprefix(prefix) async for found in they.bucket.versions(prefix)}


def processed(they: Neighbours, run_id: UUID) -> list[dict[str, Any]]:
    """What was said of the files that a run has read."""
    return [content for content in they.said(FileProcessed) if content["run_id"] == str(run_id)]
