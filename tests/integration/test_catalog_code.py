"""Catalog keeps code: here the test is its users, the runner that validates, ingest that has zones, and an operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from contracts.audit import AuditRecorded, ListAudit
from contracts.files import (
    MAX_CODE_BYTES,
    CodeFileContent,
    CodeFiles,
    DeleteCodeFile,
    ListCodeFiles,
    ReadCodeFile,
    WriteCodeFile,
)
from contracts.landing import ListZones, Zones
from contracts.messages import utc_now
from contracts.namespaces import (
    CreateNamespace,
    DeleteNamespace,
    FindNamespace,
    ListNamespaces,
    UpdateNamespace,
)
from contracts.pipelines import (
    CheckedFile,
    CheckedTest,
    CompareVersion,
    CreatePipeline,
    DeletePipeline,
    FileProblem,
    FindPipeline,
    FindVersion,
    FoundReference,
    ListPipelines,
    ListVersions,
    NamespaceRemoved,
    PinDraft,
    Pipeline,
    PipelineEdited,
    PipelinePublished,
    PipelineRemoved,
    Published,
    PublishPipeline,
    RollBackPipeline,
    UpdatePipeline,
    ValidatePipeline,
    Validation,
    ZoneReference,
)
from contracts.quality import CreateQualityTest, DeleteQualityTest, ListQualityTests
from contracts.reports import Severity
from contracts.runs import FindRun, RequestRun, RunRequested, RunStatus
from contracts.tables import DocumentTable, FindTableDocs, ListTableDocs
from infra.stacks.stack import Stack
from services.catalog.code.service import Code
from services.catalog.service import serve
from shared.bus import Bus, connect
from shared.database import database
from shared.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unprocessable
from shared.object_store import ObjectStore, object_store
from tests.buses import playing_all
from tests.waiting import eventually
from tests.zones import zone


def unique(name: str) -> str:
    return f"{name}_{uuid4().hex[:8]}"


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


def _all(events: list[Any], wanted: int) -> list[Any] | None:
    return events if len(events) == wanted else None


@pytest.fixture(scope="module")
async def world(stack: Stack) -> AsyncIterator[World]:
    bus = playing_all(stack.settings)
    runner = connect(stack.settings, "runner")
    ingest = connect(stack.settings, "ingest")
    async with AsyncExitStack() as exits:
        objects = await exits.enter_async_context(object_store(stack.settings, "infra"))
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
        await exits.enter_async_context(serve(stack.settings))
        for peer in (runner, ingest, bus):
            await exits.enter_async_context(peer.running())
        await eventually(lambda: bus.ask(ListNamespaces()))
        yield world


# Namespaces


async def test_the_default_namespace_exists_and_stays(world: World) -> None:
    assert (await world.bus.ask(FindNamespace(name="default"))).created_by is None

    with pytest.raises(Forbidden):
        await world.bus.ask(DeleteNamespace(name="default", force=True))


async def test_a_namespace_is_made_described_listed_and_deleted(world: World) -> None:
    name = unique("ns")

    created = await world.bus.ask(CreateNamespace(name=name, description="of ours"))
    changed = await world.bus.ask(UpdateNamespace(name=name, description="of yours"))

    assert created.description == "of ours"
    assert (changed.description, changed.created_at) == ("of yours", created.created_at)
    with pytest.raises(AlreadyExists):
        await world.bus.ask(CreateNamespace(name=name))
    listed = await world.bus.ask(ListNamespaces(limit=200))
    assert changed in listed.namespaces
    assert listed.total == len(listed.namespaces)

    await world.bus.ask(DeleteNamespace(name=name))

    for query in (FindNamespace(name=name), UpdateNamespace(name=name, description=""), DeleteNamespace(name=name)):
        with pytest.raises(NotFound):
            await world.bus.ask(query)
    again = await world.bus.ask(CreateNamespace(name=name))
    assert again.description == ""
    assert again.created_at > created.created_at


async def test_a_namespace_that_holds_something_is_deleted_by_force_only(world: World) -> None:
    namespace = await world.namespace()
    pipelines = [await world.pipeline(namespace=namespace) for _ in range(2)]
    world.zones[namespace] = ["a", "b", "c"]

    with pytest.raises(Conflict, match="2 pipelines and 3 landing zones"):
        await world.bus.ask(DeleteNamespace(name=namespace))
    await world.bus.ask(DeleteNamespace(name=namespace, force=True))

    for pipeline in pipelines:
        await eventually(lambda pipeline=pipeline: world.of(PipelineRemoved, pipeline))
        with pytest.raises(NotFound):
            await world.find(pipeline)
    await eventually(
        lambda: [one for one in world.heard if isinstance(one, NamespaceRemoved) and one.namespace == namespace]
    )


async def test_zones_alone_keep_a_namespace_from_being_deleted(world: World) -> None:
    namespace = await world.namespace()
    world.zones[namespace] = ["a"]

    with pytest.raises(Conflict, match="1 landing zone"):
        await world.bus.ask(DeleteNamespace(name=namespace))

    assert (await world.bus.ask(FindNamespace(name=namespace))).name == namespace


# Pipelines


async def test_a_new_pipeline_has_files_that_say_what_comes_next(world: World) -> None:
    name = unique("orders")

    created = await world.bus.ask(CreatePipeline(namespace="default", layer="silver", name=name, description="all"))

    assert created.s3_path == f"default/pipelines/silver/{name}/"
    assert created.files_created == ["pipeline.sql", "config.yaml"]
    pipeline = await world.find(f"default.silver.{name}")
    assert (pipeline.type, pipeline.description, pipeline.owner, pipeline.version) == ("sql", "all", None, None)
    assert pipeline.draft_dirty
    assert (pipeline.published_versions, pipeline.published_at, pipeline.max_versions) == ({}, None, 50)
    listed = await world.files(created.s3_path)
    assert [(file.path.removeprefix(created.s3_path), file.type) for file in listed.files] == [
        ("config.yaml", "config"),
        ("pipeline.sql", "pipeline-sql"),
    ]


async def test_a_pipeline_needs_a_namespace_and_a_free_name(world: World) -> None:
    pipeline = await world.pipeline()
    name = pipeline.split(".")[2]

    with pytest.raises(NotFound, match="namespace"):
        await world.bus.ask(CreatePipeline(namespace=unique("ns"), layer="bronze", name=name))
    with pytest.raises(AlreadyExists):
        await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=name))
    with pytest.raises(Invalid, match="landing"):
        await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name="landing"))
    assert await world.pipeline(layer="gold")


async def test_a_pipeline_in_python_is_made_with_a_starter_of_its_own(world: World) -> None:
    name = unique("p")

    created = await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=name, type="python"))

    assert created.files_created == ["pipeline.py", "config.yaml"]
    assert (await world.find(f"default.bronze.{name}")).type == "python"


async def test_of_two_who_make_a_pipeline_at_once_one_does(world: World) -> None:
    query = CreatePipeline(namespace="default", layer="bronze", name=unique("p"))

    answers = await asyncio.gather(*(world.bus.ask(query) for _ in range(5)), return_exceptions=True)

    assert sorted(type(answer).__name__ for answer in answers) == ["AlreadyExists"] * 4 + ["PipelineCreated"]


async def test_code_that_was_there_before_its_pipeline_is_kept(world: World) -> None:
    name = unique("p")
    key = f"default/pipelines/bronze/{name}/pipeline.sql"
    await world.objects.put(key, b"select 42 as id")

    created = await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=name))

    assert created.files_created == ["config.yaml"]
    assert await world.objects.get(key) == b"select 42 as id"


async def test_pipelines_are_listed_by_page_filter_search_and_order(world: World) -> None:
    namespace = await world.namespace()
    for layer, name, description in [("gold", "b", "Sums"), ("bronze", "a", ""), ("bronze", "c", "raw sums")]:
        query = {"namespace": namespace, "layer": layer, "name": name, "description": description}
        await world.bus.ask(CreatePipeline.model_validate(query))

    async def names(**facts: Any) -> list[str]:
        listed = await world.bus.ask(ListPipelines(namespace=namespace, **facts))
        return [pipeline.name for pipeline in listed.pipelines]

    assert await names() == ["a", "b", "c"]
    assert await names(sort="-name") == ["c", "b", "a"]
    assert await names(sort="created_at") == ["b", "a", "c"]
    assert await names(layer="bronze") == ["a", "c"]
    assert await names(search="SUMS") == ["b", "c"]
    assert await names(search="gold.b") == ["b"]
    assert await names(search="%") == []
    first = await world.bus.ask(ListPipelines(namespace=namespace, limit=2))
    assert first.total == 3
    rest = await world.bus.ask(ListPipelines(namespace=namespace, limit=2, cursor=first.next_cursor))
    assert [pipeline.name for pipeline in rest.pipelines] == ["c"]
    assert rest.next_cursor is None


async def test_what_is_given_of_a_pipeline_changes_and_the_rest_stays(world: World) -> None:
    pipeline = await world.pipeline()
    await world.bus.ask(UpdatePipeline(pipeline=pipeline, description="mine", owner="ada"))

    changed = await world.bus.ask(UpdatePipeline(pipeline=pipeline, max_versions=3))

    assert (changed.description, changed.owner, changed.max_versions) == ("mine", "ada", 3)
    assert (await world.bus.ask(UpdatePipeline(pipeline=pipeline, owner=""))).owner is None
    assert (await world.bus.ask(UpdatePipeline(pipeline=pipeline, type="python"))).type == "python"
    assert (await world.bus.ask(UpdatePipeline(pipeline=pipeline, owner="bob"))).type == "python"
    with pytest.raises(NotFound):
        await world.bus.ask(UpdatePipeline(pipeline="default.bronze.nowhere", owner="ada"))


async def test_a_deleted_pipeline_leaves_its_name_and_folder_to_the_next(world: World) -> None:
    pipeline = await world.pipeline()
    old = await world.find(pipeline)
    version = await world.write(pipeline, "notes.md", "old")
    await world.publish(pipeline)

    await world.bus.ask(DeletePipeline(pipeline=pipeline))

    [removed] = await eventually(lambda: world.of(PipelineRemoved, pipeline))
    assert removed.pipeline_id == old.id
    with pytest.raises(NotFound):
        await world.find(pipeline)
    with pytest.raises(NotFound):
        await world.bus.ask(DeletePipeline(pipeline=pipeline))
    assert (await world.files(folder(pipeline))).total == 0
    assert await world.objects.get(folder(pipeline) + "notes.md", version) == b"old"
    await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=pipeline.split(".")[2]))
    new = await world.find(pipeline)
    assert (new.id != old.id, new.version, new.draft_dirty) == (True, None, True)
    assert (await world.files(folder(pipeline))).total == 2


async def test_what_a_deletion_could_not_clear_is_cleared_later(world: World, stack: Stack) -> None:
    names = [await world.pipeline() for _ in range(2)]
    for pipeline in names:
        await world.write(pipeline, "notes.md", "old")

    nowhere = stack.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    async with database(stack.settings, "catalog", None) as db, object_store(nowhere, "catalog") as objects:
        for pipeline in names:
            await Code(db, objects, world.bus, stack.settings).delete_pipeline(DeletePipeline(pipeline=pipeline))

    assert await world.objects.get(folder(names[0]) + "notes.md") == b"old"
    await world.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=names[0].split(".")[2]))
    assert (await world.files(folder(names[0]))).total == 2
    async with database(stack.settings, "catalog", None) as db:
        await Code(db, world.objects, world.bus, stack.settings).clear_removed()
    with pytest.raises(NotFound):
        await world.objects.get(folder(names[1]) + "notes.md")


async def test_a_deleted_pipeline_takes_its_runs_with_it(world: World) -> None:
    pipeline = await world.pipeline()
    request = RunRequested(pipeline=pipeline, trigger="manual")
    run = await world.bus.ask(RequestRun(request=request))

    await world.bus.ask(DeletePipeline(pipeline=pipeline))

    assert (await world.bus.ask(FindRun(run_id=run.run_id))).status is RunStatus.CANCELLED


# Files


async def test_a_file_is_written_read_listed_and_deleted(world: World) -> None:
    pipeline = await world.pipeline()
    before = utc_now() - timedelta(seconds=5)

    version = await world.write(pipeline, "docs/why.md", "grüße\r\n")

    content = await world.read(pipeline, "docs/why.md")
    assert (content.content, content.size, content.version_id) == ("grüße\r\n", 9, version)
    assert content.modified > before
    [listed] = (await world.files(folder(pipeline) + "docs/")).files
    assert (listed.version_id, listed.size, listed.type) == (version, 9, "file")
    await world.bus.ask(DeleteCodeFile(path=folder(pipeline) + "docs/why.md"))
    for query in (
        ReadCodeFile(path=folder(pipeline) + "docs/why.md"),
        DeleteCodeFile(path=folder(pipeline) + "docs/why.md"),
    ):
        with pytest.raises(NotFound):
            await world.bus.ask(query)


async def test_an_edit_is_said_with_what_it_made_of_the_draft(world: World) -> None:
    pipeline = await world.pipeline()
    starter = (await world.read(pipeline, "pipeline.sql")).content
    await world.publish(pipeline)

    await world.write(pipeline, "pipeline.sql", "select 2 as id")
    assert (await world.find(pipeline)).draft_dirty
    await world.write(pipeline, "pipeline.sql", starter)
    assert not (await world.find(pipeline)).draft_dirty

    edits = await eventually(lambda: _all(world.of(PipelineEdited, pipeline), 2))
    assert sorted((edit.path, edit.draft_dirty) for edit in edits) == [("pipeline.sql", False), ("pipeline.sql", True)]


async def test_lists_know_of_an_edit_and_of_what_others_wrote_once_it_was_seen(world: World) -> None:
    namespace = await world.namespace()
    pipeline = await world.pipeline(namespace=namespace)
    await world.publish(pipeline)

    async def listed() -> bool:
        return (await world.bus.ask(ListPipelines(namespace=namespace))).pipelines[0].draft_dirty

    assert not await listed()
    await world.objects.put(folder(pipeline) + "config.yaml", b"merge_strategy: append_only\n")
    assert (await world.find(pipeline)).draft_dirty
    assert await listed()
    await world.publish(pipeline)
    await world.bus.ask(DeleteCodeFile(path=folder(pipeline) + "config.yaml"))
    assert await listed()


async def test_a_file_that_somebody_else_changed_is_not_overwritten(world: World) -> None:
    pipeline = await world.pipeline()
    first = await world.write(pipeline, "pipeline.sql", "select 1")

    second = await world.write(pipeline, "pipeline.sql", "select 2", if_match=first)

    with pytest.raises(Conflict, match=second):
        await world.write(pipeline, "pipeline.sql", "select 3", if_match=first)
    with pytest.raises(Conflict, match="does not exist"):
        await world.write(pipeline, "new.sql", "select 3", if_match=first)
    assert (await world.read(pipeline, "pipeline.sql")).content == "select 2"


async def test_of_many_who_change_the_same_version_one_does(world: World) -> None:
    pipeline = await world.pipeline()
    first = await world.write(pipeline, "pipeline.sql", "select 0")

    answers = await asyncio.gather(
        *(world.write(pipeline, "pipeline.sql", f"select {number}", if_match=first) for number in range(1, 5)),
        return_exceptions=True,
    )

    [written] = [answer for answer in answers if isinstance(answer, str)]
    assert sum(isinstance(answer, Conflict) for answer in answers) == 3
    assert (await world.read(pipeline, "pipeline.sql")).version_id == written


async def test_edits_at_once_all_count(world: World) -> None:
    pipeline = await world.pipeline()
    await world.publish(pipeline)

    await asyncio.gather(*(world.write(pipeline, f"f{number}.md", "x") for number in range(8)))

    assert (await world.files(folder(pipeline))).total == 10
    assert [one.draft_dirty for one in (await world.bus.ask(ListPipelines(search=pipeline))).pipelines] == [True]
    assert await eventually(lambda: _all(world.of(PipelineEdited, pipeline), 8))


async def test_files_are_for_pipelines_that_exist_and_stay_in_their_folders(world: World) -> None:
    with pytest.raises(NotFound, match="no pipeline"):
        await world.write("default.bronze.nowhere", "pipeline.sql", "select 1")
    with pytest.raises(NotFound, match="no pipeline"):
        await world.read("default.bronze.nowhere", "pipeline.sql")
    for path in ("default/landing/z/x.csv", "/etc/passwd", "default/pipelines/bronze/p/../q/x.sql", "a\0b", "a\\b"):
        with pytest.raises(Invalid):
            await world.bus.ask(WriteCodeFile(path=path, content=""))
        with pytest.raises(Invalid):
            await world.bus.ask(ReadCodeFile(path=path))
        with pytest.raises(Invalid):
            await world.bus.ask(DeleteCodeFile(path=path))
    with pytest.raises(Invalid):
        await world.files("default/landing/")


async def test_a_file_of_the_largest_size_travels_and_a_larger_one_is_refused_with_the_limit(world: World) -> None:
    pipeline = await world.pipeline()
    largest = "x" * MAX_CODE_BYTES

    await world.write(pipeline, "large.md", largest)

    assert (await world.read(pipeline, "large.md")).content == largest
    await world.objects.put(folder(pipeline) + "larger.md", largest.encode() + b"x")
    await world.objects.put(folder(pipeline) + "image.png", b"\x89PNG")
    with pytest.raises(Unprocessable, match="204800"):
        await world.read(pipeline, "larger.md")
    with pytest.raises(Unprocessable, match="UTF-8"):
        await world.read(pipeline, "image.png")


async def test_files_are_listed_by_prefix_page_and_exclusion(world: World) -> None:
    namespace = await world.namespace()
    one = await world.pipeline("a", namespace=namespace)
    two = await world.pipeline("b", namespace=namespace)
    await world.write(one, "tests/quality/t.sql", "select 1")
    await world.objects.put(f"{namespace}/pipelines/bronze/nobody/pipeline.sql", b"")
    await world.objects.put(folder(one) + "landing/pipeline.sql", b"")

    whole = [folder(one) + file for file in ("config.yaml", "pipeline.sql", "tests/quality/t.sql")]
    whole += [folder(two) + file for file in ("config.yaml", "pipeline.sql")]
    for prefix in (f"{namespace}/", f"{namespace}/pipelines/bro", namespace):
        assert [file.path for file in (await world.files(prefix)).files] == whole
    assert (await world.files("")).total >= 5
    assert [file.path for file in (await world.files(folder(two) + "p")).files] == whole[4:]
    assert [file.path for file in (await world.files(f"{namespace}/", exclude="tests,config.*")).files] == [
        whole[1],
        whole[4],
    ]
    page = await world.files(f"{namespace}/", limit=2)
    rest = await world.files(f"{namespace}/", cursor=page.next_cursor)
    assert [file.path for file in [*page.files, *rest.files]] == whole
    assert (await world.files(f"{namespace}x/")).files == []


# Quality tests


async def test_a_test_is_a_file_with_a_header(world: World) -> None:
    pipeline = await world.pipeline()

    created = await world.bus.ask(
        CreateQualityTest(
            pipeline=pipeline,
            name="no_nulls",
            sql="select * from {{ this }} where id is null",
            severity=Severity.WARN,
            description="Every row has an id",
            tags=["keys", "basic"],
            remediation="ask the source",
        )
    )

    assert created.path == folder(pipeline) + "tests/quality/no_nulls.sql"
    assert created.severity is Severity.WARN
    [test] = (await world.bus.ask(ListQualityTests(pipeline=pipeline))).tests
    assert test.sql == (await world.read(pipeline, "tests/quality/no_nulls.sql")).content
    assert (test.name, test.severity, test.description) == ("no_nulls", Severity.WARN, "Every row has an id")
    assert (test.tags, test.remediation, test.published) == (["keys", "basic"], "ask the source", False)
    with pytest.raises(AlreadyExists):
        await world.bus.ask(CreateQualityTest(pipeline=pipeline, name="no_nulls", sql="select 2"))


async def test_a_test_that_was_written_as_a_file_is_listed_until_its_file_is_gone(world: World) -> None:
    pipeline = await world.pipeline()
    await world.write(pipeline, "tests/quality/b.sql", "-- @severity: warn\nselect 1")
    await world.objects.put(folder(pipeline) + "tests/quality/a.sql", b"select 1")
    await world.publish(pipeline)
    await world.write(pipeline, "tests/quality/c.sql", "select 1")

    listed = await world.bus.ask(ListQualityTests(pipeline=pipeline))

    assert [(test.name, test.severity, test.published) for test in listed.tests] == [
        ("a", "error", True),
        ("b", "warn", True),
        ("c", "error", False),
    ]
    for name in ("a", "c"):
        await world.bus.ask(DeleteQualityTest(pipeline=pipeline, name=name))
    assert (await world.bus.ask(ListQualityTests(pipeline=pipeline))).total == 1
    for name in ("a", "../b", "no.such"):
        with pytest.raises(NotFound):
            await world.bus.ask(DeleteQualityTest(pipeline=pipeline, name=name))


async def test_a_deleted_test_can_be_made_again(world: World) -> None:
    pipeline = await world.pipeline()
    query = CreateQualityTest(pipeline=pipeline, name="t", sql="select 1")
    await world.bus.ask(query)
    await world.bus.ask(DeleteQualityTest(pipeline=pipeline, name="t"))

    await world.bus.ask(query)

    assert (await world.bus.ask(ListQualityTests(pipeline=pipeline))).total == 1


# Publishing


async def test_publishing_pins_every_file_and_says_what_the_pipeline_reads(world: World) -> None:
    raw = await world.pipeline("raw")
    pipeline = await world.pipeline("orders", layer="silver")
    sql = await world.write(pipeline, "pipeline.sql", "select 1")
    await world.write(pipeline, "tests/quality/t.sql", "select 1")
    world.zones["default"] = ["orders"]
    world.findings[pipeline] = Validation(
        valid=True,
        files=[CheckedFile(path="pipeline.sql", valid=True)],
        reads_tables=[raw],
        reads_zones=[ZoneReference(namespace="default", zone="orders", only_new=True)],
        archives_files=True,
        description="from the head of the file",
        tests=[CheckedTest(name="t", path="tests/quality/t.sql")],
    )

    published = await world.publish(pipeline, "first")

    assert (published.status, published.version, published.message) == ("published", 1, "first")
    assert published.versions.keys() == {"config.yaml", "pipeline.sql", "tests/quality/t.sql"}
    assert published.versions["pipeline.sql"] == sql
    assert published.validation.files == [CheckedFile(path="pipeline.sql", valid=True)]
    [asked] = [query for query in world.validated if query.pipeline == pipeline]
    assert {file.path: file.version_id for file in asked.files} == published.versions
    [event] = await eventually(lambda: world.of(PipelinePublished, pipeline))
    assert (event.version, event.message, event.reads_tables, event.archives_files) == (1, "first", [raw], True)
    assert event.reads_zones == [ZoneReference(namespace="default", zone="orders", only_new=True)]
    found = await world.find(pipeline)
    assert (found.version, found.published_versions, found.draft_dirty) == (1, published.versions, False)
    assert (found.published_at is not None, found.description) == (True, "from the head of the file")


async def test_a_draft_with_errors_is_refused_file_by_file(world: World) -> None:
    pipeline = await world.pipeline()
    problem = FileProblem(line=3, message="unknown merge_strategy 'incremntal', did you mean 'incremental'?")
    world.findings[pipeline] = Validation(
        valid=False, files=[CheckedFile(path="config.yaml", valid=False, errors=[problem])]
    )

    with pytest.raises(Unprocessable, match=r"config\.yaml:3: unknown merge_strategy") as refused:
        await world.publish(pipeline)

    validation = refused.value.details["validation"]
    assert not validation["valid"]
    [file] = validation["files"]
    assert (file["path"], file["valid"], file["warnings"]) == ("config.yaml", False, [])
    assert file["errors"] == [problem.model_dump()]
    assert (await world.find(pipeline)).version is None


async def test_unknown_tables_and_stray_objects_are_warnings(world: World) -> None:
    pipeline = await world.pipeline()
    await world.write(pipeline, "pipeline.sql", "select *\nfrom {{ ref('bronze.nowhere') }}")
    await world.objects.put(folder(pipeline) + "stray", b"")
    world.reads(pipeline, "default.bronze.nowhere")

    published = await world.publish(pipeline)

    [code, stray] = published.validation.files
    assert code.warnings == [FileProblem(message="no pipeline writes default.bronze.nowhere")]
    assert (stray.path, len(stray.warnings)) == ("stray", 1)
    assert "stray" not in published.versions


async def test_what_files_name_is_missed_where_they_name_it_with_what_may_have_been_meant(world: World) -> None:
    raw = await world.pipeline("raw_orders")
    pipeline = await world.pipeline()
    world.zones["default"] = ["orders"]
    test = "tests/quality/t.sql"
    world.findings[pipeline] = Validation(
        valid=True,
        files=[CheckedFile(path="pipeline.sql", valid=True), CheckedFile(path=test, valid=True)],
        references=[
            FoundReference(type="landing_zone", name="default/ordres", path="pipeline.sql", line=2, column=6),
            FoundReference(type="table", name=f"{raw}x", path=test, line=1, column=15),
        ],
    )

    published = await world.publish(pipeline)

    warnings = {file.path: file.warnings for file in published.validation.files}
    assert warnings == {
        "pipeline.sql": [
            FileProblem(
                line=2,
                column=6,
                message="there is no landing zone default/ordres yet, did you mean 'default/orders'?",
            )
        ],
        test: [FileProblem(line=1, column=15, message=f"no pipeline writes {raw}x, did you mean {raw!r}?")],
    }


async def test_a_cycle_of_published_pipelines_is_refused(world: World) -> None:
    a, b = await world.pipeline("a"), await world.pipeline("b")
    world.reads(a, b)
    world.reads(b, a)
    await world.publish(a)

    with pytest.raises(Unprocessable, match=f"{b} reads {a} reads {b}"):
        await world.publish(b)

    world.reads(a)
    await world.publish(a)
    assert (await world.publish(b)).version == 1


async def test_of_two_publications_that_close_a_cycle_together_one_is_refused(world: World) -> None:
    a, b = await world.pipeline("a"), await world.pipeline("b")
    world.reads(a, b)
    world.reads(b, a)

    answers = await asyncio.gather(world.publish(a), world.publish(b), return_exceptions=True)

    assert sorted(type(answer).__name__ for answer in answers) == ["Published", "Unprocessable"]


async def test_publications_at_once_have_different_numbers(world: World) -> None:
    pipeline = await world.pipeline()

    published = await asyncio.gather(*(world.publish(pipeline) for _ in range(5)))

    assert sorted(one.version for one in published) == [1, 2, 3, 4, 5]
    assert (await world.find(pipeline)).version == 5
    assert await eventually(lambda: _all(world.of(PipelinePublished, pipeline), 5))


async def test_versions_are_listed_and_the_oldest_are_forgotten(world: World) -> None:
    pipeline = await world.pipeline()
    await world.bus.ask(UpdatePipeline(pipeline=pipeline, max_versions=2))
    for number in range(1, 4):
        await world.write(pipeline, "pipeline.sql", f"select {number}")
        await world.publish(pipeline, f"number {number}")

    listed = await world.bus.ask(ListVersions(pipeline=pipeline))

    assert [(one.version_number, one.message) for one in listed.versions] == [(3, "number 3"), (2, "number 2")]
    assert listed.total == 2
    found = await world.bus.ask(FindVersion(pipeline=pipeline, version=2))
    assert found == listed.versions[1]
    assert found.pipeline_id == (await world.find(pipeline)).id
    pinned = found.published_versions["pipeline.sql"]
    assert await world.objects.get(folder(pipeline) + "pipeline.sql", pinned) == b"select 2"
    for number in (1, 9):
        with pytest.raises(NotFound):
            await world.bus.ask(FindVersion(pipeline=pipeline, version=number))


async def test_rolling_back_makes_a_new_version_of_an_older_one_and_leaves_the_draft(world: World) -> None:
    raw, pipeline = await world.pipeline("raw"), await world.pipeline("orders", layer="silver")
    world.reads(pipeline, raw)
    first = await world.publish(pipeline, "first")
    world.reads(pipeline)
    await world.write(pipeline, "pipeline.sql", "select 2 as id")
    await world.publish(pipeline, "second")

    done = await world.bus.ask(RollBackPipeline(pipeline=pipeline, version=1))

    assert (done.status, done.from_version, done.new_version) == ("rolled_back", 1, 3)
    assert done.message == "Rollback to version 1"
    found = await world.find(pipeline)
    assert (found.version, found.published_versions, found.draft_dirty) == (3, first.versions, True)
    assert (await world.read(pipeline, "pipeline.sql")).content == "select 2 as id"
    listed = (await world.bus.ask(ListVersions(pipeline=pipeline))).versions
    assert [one.version_number for one in listed] == [3, 2, 1]
    events = await eventually(lambda: _all(world.of(PipelinePublished, pipeline), 3))
    assert [(event.version, event.reads_tables) for event in events][2] == (3, [raw])


async def test_a_rollback_to_what_the_draft_is_leaves_nothing_dirty(world: World) -> None:
    pipeline = await world.pipeline()
    starter = (await world.read(pipeline, "pipeline.sql")).content
    await world.publish(pipeline)
    await world.write(pipeline, "pipeline.sql", "select 2 as id")
    await world.publish(pipeline)
    await world.write(pipeline, "pipeline.sql", starter)
    assert (await world.find(pipeline)).draft_dirty

    await world.bus.ask(RollBackPipeline(pipeline=pipeline, version=1, message="it was right"))

    [listed] = (await world.bus.ask(ListPipelines(search=pipeline.split(".")[2]))).pipelines
    assert (listed.version, listed.draft_dirty) == (3, False)


async def test_rollbacks_and_publications_at_once_have_different_numbers(world: World) -> None:
    pipeline = await world.pipeline()
    await world.publish(pipeline)

    rollbacks = [world.bus.ask(RollBackPipeline(pipeline=pipeline, version=1)) for _ in range(3)]
    answers = await asyncio.gather(*rollbacks, world.publish(pipeline), world.publish(pipeline))

    numbers = sorted(getattr(answer, "new_version", 0) or getattr(answer, "version", 0) for answer in answers)
    assert numbers == [2, 3, 4, 5, 6]
    assert (await world.find(pipeline)).version == 6


async def test_a_rollback_is_refused_for_a_version_that_is_gone_and_for_one_that_closes_a_cycle(world: World) -> None:
    first, second = await world.pipeline("a"), await world.pipeline("b")
    world.reads(first, second)
    await world.publish(first)
    world.reads(first)
    await world.publish(first)
    world.reads(second, first)
    await world.publish(second)

    with pytest.raises(Conflict, match=f"{first} reads {second} reads {first}"):
        await world.bus.ask(RollBackPipeline(pipeline=first, version=1))
    with pytest.raises(NotFound, match="no version 7"):
        await world.bus.ask(RollBackPipeline(pipeline=first, version=7))
    assert (await world.find(first)).version == 2


async def test_versions_are_compared_file_by_file(world: World) -> None:
    pipeline = await world.pipeline()
    await world.write(pipeline, "pipeline.sql", "select 1 as id,\n  'ü\u2028' as name\n")
    await world.write(pipeline, "notes.md", "old")
    await world.publish(pipeline)
    await world.write(pipeline, "pipeline.sql", "select 2 as id,\n  'ü\u2028' as name\n")
    await world.bus.ask(DeleteCodeFile(path=folder(pipeline) + "notes.md"))
    await world.publish(pipeline)
    await world.write(pipeline, "tests/quality/t.sql", "select 1")

    between = await world.bus.ask(CompareVersion(pipeline=pipeline, version=1, against=2))
    with_draft = await world.bus.ask(CompareVersion(pipeline=pipeline, version=2))
    page = await world.bus.ask(CompareVersion(pipeline=pipeline, version=1, against=2, limit=1))

    assert [(file.path, file.change) for file in between.files] == [
        ("notes.md", "removed"),
        ("pipeline.sql", "changed"),
    ]
    assert between.files[0].diff == (
        "--- version 1/notes.md\n+++ /dev/null\n@@ -1 +0,0 @@\n-old\n\\ No newline at end of file\n"
    )
    assert between.files[1].diff.splitlines()[:5] == [
        "--- version 1/pipeline.sql",
        "+++ version 2/pipeline.sql",
        "@@ -1,2 +1,2 @@",
        "-select 1 as id,",
        "+select 2 as id,",
    ]
    assert [(file.path, file.change) for file in with_draft.files] == [("tests/quality/t.sql", "added")]
    assert with_draft.files[0].diff.startswith("--- /dev/null\n+++ draft/tests/quality/t.sql\n")
    assert (len(page.files), page.total, page.next_cursor is not None) == (1, 2, True)
    with pytest.raises(NotFound, match="no version 9"):
        await world.bus.ask(CompareVersion(pipeline=pipeline, version=1, against=9))


async def test_a_draft_can_be_pinned_without_publishing_it(world: World) -> None:
    pipeline = await world.pipeline()
    version = await world.write(pipeline, "pipeline.sql", "select 7 as id")

    pinned = await world.bus.ask(PinDraft(pipeline=pipeline))

    assert {file.path: file.version_id for file in pinned.files}["pipeline.sql"] == version
    assert pinned.pipeline_id == (await world.find(pipeline)).id
    with pytest.raises(NotFound):
        await world.bus.ask(PinDraft(pipeline="default.bronze.nothing"))


async def test_a_page_of_pipelines_with_many_pins_fits_into_a_message(world: World) -> None:
    namespace = await world.namespace()
    for _ in range(3):
        pipeline = await world.pipeline(namespace=namespace)
        for number in range(300):
            key = f"{folder(pipeline)}{'d' * 60}/{'d' * 60}/{number:03}{'f' * 60}.md"
            await world.objects.put(key, b"")
        await world.publish(pipeline)

    first = await world.bus.ask(ListPipelines(namespace=namespace))

    assert (first.total, len(first.pipelines) < 3) == (3, True)
    rest = await world.bus.ask(ListPipelines(namespace=namespace, cursor=first.next_cursor))
    assert len(first.pipelines) + len(rest.pipelines) == 3


# What people say and did


async def test_a_table_is_documented_piece_by_piece(world: World) -> None:
    table, other = f"default.bronze.{unique('t')}", f"default.bronze.{unique('t')}"
    assert (await world.bus.ask(FindTableDocs(table=table))).updated_at is None

    await world.bus.ask(DocumentTable(table=table, description="orders", owner="ada"))
    docs = await world.bus.ask(DocumentTable(table=table, column_descriptions={"id": "key"}, owner=""))

    assert (docs.description, docs.owner, docs.column_descriptions) == ("orders", None, {"id": "key"})
    assert await world.bus.ask(FindTableDocs(table=table)) == docs
    listed = await world.bus.ask(ListTableDocs(tables=[other, table, table]))
    assert [(one.table, one.description) for one in listed.tables] == [(table, "orders")]
    assert (await world.bus.ask(ListTableDocs(tables=[]))).tables == []


async def test_what_somebody_did_is_kept_once_and_found(world: World) -> None:
    user = unique("user")
    events = [
        AuditRecorded(user_id=user, action=action, resource="default.bronze.x", outcome="success", detail={"a": "\0"})
        for action in ("pipeline.create", "run.trigger")
    ]

    for event in [*events, events[0]]:
        await world.bus.publish(event)

    async def entries(**facts: Any) -> list[str]:
        return [entry.action for entry in (await world.bus.ask(ListAudit(**facts))).entries]

    await eventually(lambda: _length_is(entries(user=user), 2))
    assert await entries(user=user, action="run.trigger") == ["run.trigger"]
    assert await entries(user=user, resource="default.bronze.y") == []
    newest = (await world.bus.ask(ListAudit(user=user, limit=1))).entries[0]
    assert (newest.id, newest.created_at) == (events[1].event_id, events[1].occurred_at)


async def _length_is(entries: Any, length: int) -> bool:
    return len(await entries) == length
