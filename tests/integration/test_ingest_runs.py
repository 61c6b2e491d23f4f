"""The files of a run are fixed when it first asks, checked when it has written, and settled when it ends."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from contracts.landing import (
    ClaimedFiles,
    FileLanded,
    FileState,
    RejectFile,
    RemoveZone,
    ZoneForm,
)
from contracts.pipelines import PipelineRemoved
from contracts.runs import RunOutcome, RunStatus
from infra.stacks.stack import Stack
from services.ingest.service import serve
from shared.database import database
from shared.errors import NotFound
from tests.landing import Neighbours, keys, neighbours, orders, processed, put_many, zone_with
from tests.refusing import behind_a_door
from tests.waiting import eventually

ALL, NEW = ZoneForm.ALL, ZoneForm.NEW


@pytest.fixture
async def they(stack: Stack) -> AsyncIterator[Neighbours]:
    """Ingest runs; these are its neighbours."""
    async with neighbours(stack.settings) as they, serve(stack.settings):
        yield they


def names(answer: ClaimedFiles) -> list[str]:
    assert answer.state == "ready"
    return [file.filename for file in answer.files]


# Claims


async def test_every_attempt_of_a_run_gets_the_files_of_the_first(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    first = await they.claim(run_id, pipeline, zone, attempt=1)

    await they.put(zone, "b.csv")
    await they.landed(zone, "b.csv")

    assert names(first) == ["a.csv"]
    assert await they.claim(run_id, pipeline, zone, attempt=2) == first
    [file] = first.files
    assert (file.key, file.size_bytes) == (f"default/landing/{zone.name}/a.csv", 5)
    assert names(await they.claim(run_id, pipeline, zone, ALL, attempt=2)) == ["a.csv", "b.csv"]


async def test_an_empty_answer_stands_as_well(they: Neighbours) -> None:
    zone, pipeline, run_id = await they.zone(), orders(), uuid4()
    assert names(await they.claim(run_id, pipeline, zone)) == []

    await they.put(zone, "a.csv")
    await they.landed(zone, "a.csv")

    assert names(await they.claim(run_id, pipeline, zone, attempt=2)) == []


async def test_new_files_are_read_once_by_the_good_runs_of_each_pipeline(they: Neighbours) -> None:
    zone, one, other = await zone_with(they, "a.csv"), orders(), orders()

    assert await they.reads(one, zone) == ["a.csv"]
    await they.put(zone, "b.csv")
    await they.landed(zone, "b.csv")

    assert await they.reads(one, zone) == ["b.csv"]
    assert await they.reads(one, zone) == []
    assert await they.reads(one, zone, ALL) == ["a.csv", "b.csv"]
    assert await they.reads(other, zone) == ["a.csv", "b.csv"]
    files = await they.files(zone)
    assert {file.state for file in files.values()} == {FileState.PROCESSED}


async def test_a_file_that_was_read_among_all_files_is_not_new(they: Neighbours) -> None:
    zone, pipeline = await zone_with(they, "a.csv"), orders()

    assert await they.reads(pipeline, zone, ALL) == ["a.csv"]

    assert await they.reads(pipeline, zone, NEW) == []


@pytest.mark.parametrize(
    ("status", "dry_run"), [(RunStatus.FAILED, False), (RunStatus.CANCELLED, False), (RunStatus.SUCCESS, True)]
)
async def test_a_run_that_is_no_success_leaves_its_files_new(
    they: Neighbours, status: RunStatus, dry_run: bool
) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone)

    await they.finish(run_id, pipeline, status, dry_run=dry_run)

    await they.settled(run_id, pipeline, zone)
    assert (await they.files(zone))["a.csv"].state is FileState.LANDED
    assert await they.reads(pipeline, zone) == ["a.csv"]


async def test_the_next_run_waits_for_the_end_of_the_one_before(they: Neighbours) -> None:
    zone, pipeline, first, second = await zone_with(they, "a.csv"), orders(), uuid4(), uuid4()
    await they.claim(first, pipeline, zone)

    assert (await they.claim(second, pipeline, zone, NEW)).state == "not_yet"
    assert names(await they.claim(second, pipeline, zone, ALL)) == ["a.csv"]
    assert names(await they.claim(uuid4(), orders(), zone, NEW)) == ["a.csv"]

    await they.finish(first, pipeline)
    await they.settled(first, pipeline, zone)
    assert names(await they.claim(second, pipeline, zone, NEW)) == []


async def test_a_run_that_has_ended_gets_no_files_whether_it_asked_before_or_not(they: Neighbours) -> None:
    zone, pipeline, asked, silent = await zone_with(they, "a.csv"), orders(), uuid4(), uuid4()
    await they.claim(asked, pipeline, zone)

    for run_id in (asked, silent):
        await they.finish(run_id, pipeline, RunStatus.FAILED)
        await they.settled(run_id, pipeline, zone)

    assert (await they.claim(asked, pipeline, zone)).state == "over"
    assert (await they.claim(silent, pipeline, zone, ALL)).state == "over"
    assert (await they.check(asked)).state == "over"


async def test_an_attempt_stops_once_a_newer_one_has_asked(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone, attempt=1)
    await they.claim(run_id, pipeline, zone, attempt=2)

    assert (await they.claim(run_id, pipeline, zone, attempt=1)).state == "over"
    assert (await they.check(run_id, attempt=1)).state == "over"
    assert (await they.check(run_id, attempt=2)).state == "unchanged"


async def test_a_claim_whose_end_was_never_told_is_checked_with_catalog(stack: Stack) -> None:
    impatient = timedelta(milliseconds=200)
    async with neighbours(stack.settings) as they, serve(stack.settings, patience=impatient):
        zone, pipeline = await zone_with(they, "a.csv"), orders()
        good, under_way = uuid4(), uuid4()
        await they.claim(under_way, orders(), zone)
        await they.claim(good, pipeline, zone)

        they.outcomes[good] = RunOutcome(status=RunStatus.SUCCESS, is_known=True)

        await they.settled(good, pipeline, zone)
        assert (await they.files(zone))["a.csv"].processed_by == good
        assert (await they.check(under_way)).state == "unchanged"


async def test_long_lists_come_in_pages(they: Neighbours) -> None:
    zone, pipeline, run_id = await they.zone(), orders(), uuid4()
    # A part of a name that is longer than 255 bytes is more than some stores take.
    wanted = [f"{number:04}/{'x' * 150}/{'x' * 150}.csv" for number in range(700)]
    await put_many(they, zone, wanted)
    await they.holds(zone, 700, within=120)

    pages = [await they.claim(run_id, pipeline, zone)]
    while (cursor := pages[-1].next_cursor) is not None:
        pages.append(await they.claim(run_id, pipeline, zone, cursor=cursor))

    assert len(pages) > 2
    assert all(len(page.model_dump_json()) < 256 * 1024 for page in pages)
    assert sorted(name for page in pages for name in names(page)) == wanted
    # So many are compared with a listing of the zone.
    assert (await they.check(run_id)).state == "unchanged"
    await they.put(zone, wanted[7], "id\n1\n2\n")
    assert (await they.check(run_id)).changed == [f"default/landing/{zone.name}/{wanted[7]}"]


async def test_an_empty_list_names_the_file_whose_columns_stand_for_it(they: Neighbours) -> None:
    zone, pipeline = await zone_with(they, "a.csv", "b.csv"), orders()
    await they.reads(pipeline, zone)

    answer = await they.claim(uuid4(), pipeline, zone)

    assert names(answer) == []
    assert answer.last_file is not None
    assert answer.last_file.filename == "b.csv"


async def test_a_zone_that_does_not_exist_is_not_found_but_a_run_keeps_what_it_got(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone)

    await they.gateway.ask(RemoveZone(namespace=zone.namespace, name=zone.name))

    assert names(await they.claim(run_id, pipeline, zone)) == ["a.csv"]
    with pytest.raises(NotFound, match=zone.name):
        await they.claim(uuid4(), pipeline, zone)


# Checks after writing


async def test_a_claim_follows_a_newer_version_of_its_name(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv", "b.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone, attempt=1)
    assert (await they.check(run_id, attempt=1)).state == "unchanged"
    version = await they.put(zone, "a.csv", "id\n1\n2\n")

    checked = await they.check(run_id, attempt=1)

    assert checked.state == "changed"
    assert checked.changed == [f"default/landing/{zone.name}/a.csv"]
    assert await they.check(run_id, attempt=1) == checked
    again = await they.claim(run_id, pipeline, zone, attempt=2)
    assert names(again) == ["a.csv", "b.csv"]
    assert again.files[0].version_id == version
    assert (await they.check(run_id, attempt=2)).state == "unchanged"
    await they.finish(run_id, pipeline)
    await they.settled(run_id, pipeline, zone)
    assert await they.reads(pipeline, zone) == []
    assert (await they.files(zone, FileState.SUPERSEDED)).keys() == {"a.csv"}


async def test_a_claim_of_a_file_that_is_gone_is_dropped(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv", "b.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone, attempt=1)
    await they.remove(zone, "a.csv")

    assert (await they.check(run_id, attempt=1)).state == "changed"

    assert names(await they.claim(run_id, pipeline, zone, attempt=2)) == ["b.csv"]
    assert (await they.files(zone, FileState.REMOVED)).keys() == {"a.csv"}


async def test_a_file_that_came_after_the_check_is_read_by_the_next_run(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone)
    await they.check(run_id)
    await they.put(zone, "a.csv", "id\n1\n2\n")
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)

    await they.finish(run_id, pipeline)
    await they.settled(run_id, pipeline, zone)

    assert await they.reads(pipeline, zone) == ["a.csv"]
    assert {file.size_bytes for file in (await they.files(zone)).values()} == {7}


async def test_a_rejected_file_blocks_the_next_run_no_more(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "bad.csv", "good.csv"), orders(), uuid4()
    await they.claim(run_id, pipeline, zone)
    await they.finish(run_id, pipeline, RunStatus.FAILED)
    await they.settled(run_id, pipeline, zone)

    bad = (await they.files(zone))["bad.csv"]
    await they.gateway.ask(RejectFile(namespace=zone.namespace, zone=zone.name, file_id=bad.id))

    assert await they.reads(pipeline, zone) == ["good.csv"]


# What was read


async def test_what_a_good_run_has_read_is_said(they: Neighbours) -> None:
    zone, pipeline, run_id, idle = await zone_with(they, "a.csv", "b.csv"), orders(), uuid4(), uuid4()
    await they.claim(run_id, pipeline, zone)
    await they.finish(run_id, pipeline)
    await they.finish(run_id, pipeline)

    [said] = await eventually(lambda: processed(they, run_id))

    assert said["pipeline"] == pipeline.name
    assert said["zones"] == [{"namespace": "default", "zone": zone.name, "files": 2, "archived": 0}]
    await they.finish(idle, pipeline)
    await they.settled(idle, pipeline, zone)
    assert processed(they, idle) == []
    assert len(processed(they, run_id)) == 1


async def test_exactly_what_a_run_has_read_is_archived(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "dt=1/a.csv"), orders(), uuid4()
    await they.put(zone, "dt=1/a.csv", "id\n1\n2\n")
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)
    await they.publish(pipeline, zone, archives=True)
    await they.claim(run_id, pipeline, zone)
    await they.put(zone, "late.csv")
    await they.landed(zone, "late.csv")

    await they.finish(run_id, pipeline)

    archived = f"_processed/{run_id}/dt=1/a.csv"
    [said] = await eventually(lambda: processed(they, run_id))
    assert said["zones"] == [{"namespace": "default", "zone": zone.name, "files": 1, "archived": 1}]

    async def is_moved() -> bool:
        return await keys(they, zone) == {archived, "late.csv"}

    await eventually(is_moved)
    assert await they.bucket.get(f"default/landing/{zone.name}/{archived}") == b"id\n1\n2\n"
    file = (await they.files(zone))["dt=1/a.csv"]
    assert (file.state, file.processed_by) == (FileState.PROCESSED, run_id)
    assert file.s3_path == f"default/landing/{zone.name}/{archived}"
    assert names(await they.claim(uuid4(), orders(), zone, ALL)) == ["late.csv"]


async def test_a_file_that_the_store_does_not_copy_is_left_alone_for_a_while_and_holds_up_no_other(
    stack: Stack,
) -> None:
    async with behind_a_door(stack.settings) as (through, door), neighbours(stack.settings) as they, serve(through):
        zone, pipeline, run_id = await zone_with(they, "a.csv", "b.csv"), orders(), uuid4()
        stuck, moved = f"_processed/{run_id}/a.csv", f"_processed/{run_id}/b.csv"
        door.status, door.code = 500, b"InternalError"
        door.refuses = lambda method, path: method == "PUT" and path.endswith(stuck)
        await they.publish(pipeline, zone, archives=True)
        await they.claim(run_id, pipeline, zone)

        await they.finish(run_id, pipeline)

        [said] = await eventually(lambda: processed(they, run_id))
        assert said["zones"] == [{"namespace": "default", "zone": zone.name, "files": 2, "archived": 1}]
        kept = (await they.files(zone))["a.csv"]
        assert (kept.state, kept.s3_path) == (FileState.PROCESSED, f"default/landing/{zone.name}/a.csv")
        assert "it cannot be archived: the object store refused" in (kept.reason or "")
        refused = len(door.refused)
        other, follower = await zone_with(they, "c.csv"), orders()
        await they.publish(follower, other, archives=True)
        assert await they.reads(follower, other) == ["c.csv"]
        await eventually(lambda: they.is_archived(other, "c.csv"))
        assert len(door.refused) == refused

        door.refuses = lambda method, path: False
        async with database(stack.settings, "ingest", None) as tables:
            await tables.execute("update landing_files set archive_again_at = now() where id = $1", kept.id)
        await they.publish(follower, other, archives=True, version=2)
        await eventually(lambda: they.is_archived(zone, "a.csv"))
        assert (await they.files(zone))["a.csv"].reason is None
        assert {stuck, moved} <= await keys(they, zone)


async def test_a_file_is_archived_once_every_published_reader_has_read_it(they: Neighbours) -> None:
    zone, one, other, gone = await zone_with(they, "a.csv"), orders(), orders(), orders()
    await they.publish(one, zone, archives=True)
    await they.publish(other, zone)
    await they.publish(gone, zone)
    run_id = uuid4()
    await they.claim(run_id, one, zone)
    await they.finish(run_id, one)
    [said] = await eventually(lambda: processed(they, run_id))
    assert said["zones"][0]["archived"] == 0

    assert await they.reads(other, zone) == ["a.csv"]
    assert await keys(they, zone) == {"a.csv"}
    await they.catalog.publish(PipelineRemoved(pipeline=gone.name, pipeline_id=gone.id))

    async def is_moved() -> bool:
        return await keys(they, zone) == {f"_processed/{run_id}/a.csv"}

    await eventually(is_moved)
    assert len(processed(they, run_id)) == 1


async def test_nothing_is_archived_while_another_run_holds_it(they: Neighbours) -> None:
    zone, one, other = await zone_with(they, "a.csv"), orders(), orders()
    await they.publish(one, zone, archives=True)
    run_id, holding = uuid4(), uuid4()
    await they.claim(run_id, one, zone)
    await they.claim(holding, other, zone)

    await they.finish(run_id, one)
    await eventually(lambda: processed(they, run_id))
    assert await keys(they, zone) == {"a.csv"}
    await they.finish(holding, other, RunStatus.FAILED)

    async def is_moved() -> bool:
        return await keys(they, zone) == {f"_processed/{run_id}/a.csv"}

    await eventually(is_moved)


async def test_an_older_publication_that_is_heard_late_changes_nothing(they: Neighbours) -> None:
    zone, pipeline, run_id = await zone_with(they, "a.csv"), orders(), uuid4()
    await they.publish(pipeline, zone, archives=False, version=2)
    await they.publish(pipeline, zone, archives=True, version=1)
    await they.claim(run_id, pipeline, zone)

    await they.finish(run_id, pipeline)

    [said] = await eventually(lambda: processed(they, run_id))
    assert said["zones"][0]["archived"] == 0
    assert await keys(they, zone) == {"a.csv"}
