"""Catalog keeps versions: what is published, gone back to, and compared."""

import asyncio

import pytest

from contracts.files import (
    DeleteCodeFile,
)
from contracts.pipelines import (
    CheckedFile,
    CheckedTest,
    CompareVersion,
    FileProblem,
    FindVersion,
    FoundReference,
    ListPipelines,
    ListVersions,
    PinDraft,
    PipelinePublished,
    RollBackPipeline,
    UpdatePipeline,
    Validation,
    ZoneReference,
)
from shared.errors import Conflict, NotFound, Unprocessable
from tests.cataloguing import World, all_of, folder
from tests.waiting import eventually

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
    assert await eventually(lambda: all_of(world.of(PipelinePublished, pipeline), 5))


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
    events = await eventually(lambda: all_of(world.of(PipelinePublished, pipeline), 3))
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
