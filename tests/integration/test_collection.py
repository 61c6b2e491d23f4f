"""Files that nothing needs any more are collected, and none that anything needs, while runs go on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

import duckdb
import pytest

from contracts.maintenance import CollectedFiles
from contracts.names import Qualified
from infra.stacks.stack import Stack
from shared.errors import Conflict
from shared.lakehouse.collection import Surplus, find_surplus, remove
from shared.lakehouse.files import TableFiles
from shared.lakehouse.port import MAIN, Lakehouse
from shared.object_store import ObjectStore
from tests.stacks import StackIn
from tests.tables import Catalogs, append, merged, new_branch, read, rows, upgraded
from tests.waiting import eventually

AT_ONCE = timedelta(0)


@pytest.fixture(scope="module")
async def stack(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of our own: a collection is about all tables."""
    servers = ["postgres", "object_store", "lakehouse"]
    async with stack_in(tmp_path_factory.mktemp("collection"), servers) as stack:
        yield stack


async def keys(objects: ObjectStore, table: Qualified) -> set[str]:
    return {version.key async for version in objects.versions(f"{'/'.join(table)}/") if not version.is_deletion}


def of_table(report: CollectedFiles, table: Qualified) -> int:
    return sum(one.files for one in report.tables if one.table == str(table))


async def collected(
    lake: Lakehouse, objects: ObjectStore, files: TableFiles, *, history: timedelta | None = None
) -> Surplus:
    surplus = await find_surplus(lake, objects, files, grace=AT_ONCE, history=history)
    await remove(objects, surplus)
    return surplus


async def test_what_main_a_branch_or_the_log_needs_stays_readable(
    lake: Lakehouse,
    on: Catalogs,
    objects: ObjectStore,
    files: Callable[[], TableFiles],
    table: Qualified,
    engine: duckdb.DuckDBPyConnection,
) -> None:
    merges = [await merged(lake, on, table, number) for number in range(3)]
    opened, closed = await new_branch(lake), await new_branch(lake)
    on(opened).load_table(table).overwrite(rows(7))
    on(closed).load_table(table).overwrite(rows(8))
    await lake.close_branch(closed)
    await merged(lake, on, table, 3)

    await collected(lake, objects, files())
    after = (await find_surplus(lake, objects, files(), grace=AT_ONCE)).report()

    for reference, numbers in [
        (MAIN, [0, 1, 2, 3]),
        (opened, [7]),
        (closed, [8]),
        *[(merge.snapshot, list(range(number + 1))) for number, merge in enumerate(merges)],
    ]:
        location = await lake.location(table, reference)
        found = engine.execute("select n from iceberg_scan(?) order by n", [location]).fetchall()
        assert [n for (n,) in found] == numbers
    assert of_table(after, table) == 0


async def test_what_a_swept_branch_wrote_is_removed_for_good(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    await merged(lake, on, table, 1)
    before = await keys(objects, table)
    failed = await new_branch(lake)
    append(on(failed), table, 2)
    written = await keys(objects, table) - before
    await lake.close_branch(failed)
    assert written

    await collected(lake, objects, files())
    assert written <= await keys(objects, table)
    await lake.delete_branch(failed)
    dry = (await find_surplus(lake, objects, files(), grace=AT_ONCE)).report()
    assert written <= await keys(objects, table)
    report = (await collected(lake, objects, files())).report()

    assert written.isdisjoint(await keys(objects, table))
    assert dry == report
    assert of_table(report, table) == len(written)
    assert read(on(MAIN), table) == [1]


async def test_young_files_stay(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    failed = await new_branch(lake)
    append(on(failed), table, 2)
    await lake.delete_branch(failed)

    surplus = await find_surplus(lake, objects, files(), grace=timedelta(hours=1))

    assert surplus.versions == []
    assert surplus.young >= 3


async def test_history_can_be_shortened(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    old = await merged(lake, on, table, 1)
    untouched = Qualified("test", "bronze", f"u{uuid4().hex[:10]}")
    await merged(lake, on, untouched, 1)
    branch = await new_branch(lake)
    on(branch).drop_table(table)
    append(on(branch), table, 2)
    await lake.merge(branch, uuid4(), 1)
    for swept in await lake.branches():
        await lake.delete_branch(swept.name)
    old_location = old.tables[table]
    assert old_location is not None
    key = old_location.removeprefix("s3://").partition("/")[2]

    await collected(lake, objects, files())
    assert key in await keys(objects, table)
    await collected(lake, objects, files(), history=AT_ONCE)
    assert key not in await keys(objects, table)

    # What is gone of the past is no reason to stop.
    await collected(lake, objects, files())
    assert read(on(MAIN), table) == [2]
    assert read(on(MAIN), untouched) == [1]


async def test_nothing_is_collected_when_a_file_is_missing_that_tells_what_is_needed(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    merge = await merged(lake, on, table, 1)
    location = merge.tables[table]
    assert location is not None
    key = location.removeprefix("s3://").partition("/")[2]
    content = await objects.get(key)
    await objects.delete(key)

    with pytest.raises(Conflict, match="is missing"):
        await find_surplus(lake, objects, files(), grace=AT_ONCE)

    await objects.put(key, content)
    await find_surplus(lake, objects, files(), grace=AT_ONCE)


async def test_a_table_that_only_a_newer_engine_understands_is_left_alone(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    other = Qualified("test", "bronze", f"{table.name}_other")
    for name in (table, other):
        await merged(lake, on, name, 1)
        left = await new_branch(lake)
        append(on(left), name, 2)
        await lake.delete_branch(left)
    await upgraded(lake, objects, table, new_column="variant")
    before = await keys(objects, table)

    surplus = await collected(lake, objects, files())

    assert await keys(objects, table) == before
    assert of_table(surplus.report(), table) == 0
    assert of_table(surplus.report(), other) > 0


async def test_collecting_while_runs_go_on_removes_nothing_that_they_need(
    lake: Lakehouse, on: Catalogs, objects: ObjectStore, files: Callable[[], TableFiles], table: Qualified
) -> None:
    # As long as a run here takes at the most, as it writes files before anything needs them.
    grace = timedelta(seconds=20)
    done = asyncio.Event()
    rounds = 0

    async def collect() -> None:
        nonlocal rounds
        while not done.is_set():
            surplus = await find_surplus(lake, objects, files(), grace=grace)
            await remove(objects, surplus)
            rounds += 1

    async def write() -> None:
        for number in range(12):
            branch = await new_branch(lake)
            await asyncio.to_thread(append, on(branch), table, number)
            if number % 3 == 2:
                await lake.close_branch(branch)
                await lake.delete_branch(branch)
                continue
            assert await lake.merge(branch, uuid4(), 1) is not None
        await eventually(lambda: rounds >= 3, within=60)
        done.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(collect())
        tasks.create_task(write())

    await collected(lake, objects, files())
    assert read(on(MAIN), table) == [number for number in range(12) if number % 3 != 2]
    assert (await find_surplus(lake, objects, files(), grace=AT_ONCE)).report().files == 0
