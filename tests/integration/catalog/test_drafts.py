"""Catalog keeps drafts: the files of pipelines, and quality tests among them."""

import asyncio
from datetime import timedelta

import pytest

from contracts.files import (
    MAX_CODE_BYTES,
    DeleteCodeFile,
    ReadCodeFile,
    WriteCodeFile,
)
from contracts.messages import utc_now
from contracts.pipelines import (
    ListPipelines,
    PipelineEdited,
)
from contracts.quality import CreateQualityTest, DeleteQualityTest, ListQualityTests
from contracts.reports import Severity
from shared.errors import AlreadyExists, Conflict, Invalid, NotFound, Unprocessable
from tests.cataloguing import World, all_of, folder
from tests.waiting import eventually

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

    edits = await eventually(lambda: all_of(world.of(PipelineEdited, pipeline), 2))
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
    assert await eventually(lambda: all_of(world.of(PipelineEdited, pipeline), 8))


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


async def test_a_test_that_is_no_text_is_an_error_of_that_one_by_name(world: World) -> None:
    pipeline = await world.pipeline()
    await world.write(pipeline, "tests/quality/good.sql", "select 1")
    await world.objects.put(folder(pipeline) + "tests/quality/bad.sql", b"-- @severity: warn\nselect \xff")

    listed = await world.bus.ask(ListQualityTests(pipeline=pipeline))

    bad, good = listed.tests
    assert (good.name, good.sql, good.error) == ("good", "select 1", None)
    assert (bad.name, bad.sql, bad.severity) == ("bad", "", "error")
    assert bad.error == f"'{folder(pipeline)}tests/quality/bad.sql' is not UTF-8: byte 26 is 0xff"


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
