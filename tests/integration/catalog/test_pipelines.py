"""Catalog keeps namespaces and pipelines, what is said about tables, and who did what."""

import asyncio
from typing import Any

import pytest

from contracts.audit import AuditRecorded, ListAudit
from contracts.namespaces import (
    CreateNamespace,
    DeleteNamespace,
    FindNamespace,
    ListNamespaces,
    UpdateNamespace,
)
from contracts.pipelines import (
    CreatePipeline,
    DeletePipeline,
    ListPipelines,
    NamespaceRemoved,
    PipelineRemoved,
    UpdatePipeline,
)
from contracts.runs import FindRun, RequestRun, RunRequested, RunStatus
from contracts.tables import DocumentTable, FindTableDocs, ListTableDocs
from infra.stacks.stack import Stack
from services.catalog.code.service import Code
from shared.database import database
from shared.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from shared.object_store import object_store
from tests.cataloguing import World, folder
from tests.client import unique
from tests.waiting import eventually

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
