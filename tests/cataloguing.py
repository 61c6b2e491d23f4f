"""Everybody who speaks with catalog about code, for its tests: users, the runner, ingest and an operator."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from contracts.files import (
    CodeFileContent,
    CodeFiles,
    ListCodeFiles,
    ReadCodeFile,
    WriteCodeFile,
)
from contracts.landing import ListZones, Zones
from contracts.namespaces import (
    CreateNamespace,
    ListNamespaces,
)
from contracts.pipelines import (
    CheckedFile,
    CreatePipeline,
    FindPipeline,
    NamespaceRemoved,
    Pipeline,
    PipelineEdited,
    PipelinePublished,
    PipelineRemoved,
    Published,
    PublishPipeline,
    ValidatePipeline,
    Validation,
)
from services.catalog.service import serve
from shared.bus import Bus, connect
from shared.object_store import ObjectStore, object_store
from shared.settings import Settings
from tests.buses import playing_all
from tests.client import unique
from tests.waiting import eventually
from tests.zones import zone


def folder(pipeline: str) -> str:
    namespace, layer, name = pipeline.split(".")
    return f"{namespace}/pipelines/{layer}/{name}/"


@dataclass
class World:
    """Everybody who speaks with catalog, and what they heard."""

    bus: Bus
    objects: ObjectStore
    """The bucket, as an operator reaches it."""
    heard: list[Any] = field(default_factory=list)
    validated: list[ValidatePipeline] = field(default_factory=list)
    findings: dict[str, Validation] = field(default_factory=dict)
    """Pipeline → what the runner finds in it."""
    zones: dict[str, list[str]] = field(default_factory=dict)
    """Namespace → its landing zones."""

    def of(self, kind: type[Any], pipeline: str) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind) and event.pipeline == pipeline]

    async def namespace(self) -> str:
        return (await self.bus.ask(CreateNamespace(name=unique("ns")))).name

    async def pipeline(self, name: str = "p", *, namespace: str = "default", layer: str = "bronze") -> str:
        created = await self.bus.ask(
            CreatePipeline.model_validate({"namespace": namespace, "layer": layer, "name": unique(name)})
        )
        return f"{namespace}.{layer}.{created.name}"

    async def find(self, pipeline: str) -> Pipeline:
        return await self.bus.ask(FindPipeline(pipeline=pipeline))

    async def write(self, pipeline: str, file: str, content: str, if_match: str | None = None) -> str:
        query = WriteCodeFile(path=folder(pipeline) + file, content=content, if_match=if_match)
        return (await self.bus.ask(query)).version_id

    async def read(self, pipeline: str, file: str) -> CodeFileContent:
        return await self.bus.ask(ReadCodeFile(path=folder(pipeline) + file))

    async def files(self, prefix: str, **more: Any) -> CodeFiles:
        return await self.bus.ask(ListCodeFiles(prefix=prefix, **more))

    async def publish(self, pipeline: str, message: str | None = None) -> Published:
        return await self.bus.ask(PublishPipeline(pipeline=pipeline, message=message))

    def reads(self, pipeline: str, *tables: str) -> None:
        files = [CheckedFile(path="pipeline.sql", valid=True)]
        self.findings[pipeline] = Validation(valid=True, files=files, reads_tables=list(tables))


def all_of(events: list[Any], wanted: int) -> list[Any] | None:
    return events if len(events) == wanted else None


@asynccontextmanager
async def world_of(settings: Settings) -> AsyncIterator[World]:
    """Catalog runs; this is everybody who speaks with it."""
    bus = playing_all(settings)
    runner = connect(settings, "runner")
    ingest = connect(settings, "ingest")
    async with AsyncExitStack() as exits:
        objects = await exits.enter_async_context(object_store(settings, "infra"))
        world = World(bus, objects)

        async def validate(query: ValidatePipeline) -> Validation:
            """Find what the test said."""
            world.validated.append(query)
            return world.findings.get(query.pipeline) or Validation(valid=True, files=[])

        async def list_zones(query: ListZones) -> Zones:
            """List what the test said."""
            zones = [zone(query.namespace or "", name) for name in world.zones.get(query.namespace or "", [])]
            return Zones(zones=zones[: query.limit], total=len(zones))

        async def hear_published(event: PipelinePublished) -> None:
            world.heard.append(event)

        async def hear_edited(event: PipelineEdited) -> None:
            world.heard.append(event)

        async def hear_removed(event: PipelineRemoved) -> None:
            world.heard.append(event)

        async def hear_namespace(event: NamespaceRemoved) -> None:
            world.heard.append(event)

        runner.answer(ValidatePipeline, validate)
        ingest.answer(ListZones, list_zones)
        bus.hear(PipelinePublished, hear_published)
        bus.hear(PipelineEdited, hear_edited)
        bus.hear(PipelineRemoved, hear_removed)
        bus.hear(NamespaceRemoved, hear_namespace)
        await exits.enter_async_context(serve(settings))
        for peer in (runner, ingest, bus):
            await exits.enter_async_context(peer.running())
        await eventually(lambda: bus.ask(ListNamespaces()))
        yield world
