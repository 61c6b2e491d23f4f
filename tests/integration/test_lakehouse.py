"""Tables live on branches, reach main all at once or not at all, and every merge is in the log."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import duckdb
import pytest
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.types import StringType

from contracts.names import Qualified
from infra.stacks.stack import Stack
from shared.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unavailable
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.files import storage_errors
from shared.lakehouse.port import BEGINNING, MAIN, BranchClosed, Lakehouse, MergeConflict, Merged, MetadataFile
from tests.stacks import StackIn
from tests.tables import Catalogs, append, merged, new_branch, new_table, read, rows
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def fragile(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Servers of our own, to be killed."""
    servers = ["postgres", "object_store", "lakehouse"]
    async with stack_in(tmp_path_factory.mktemp("fragile"), servers) as stack:
        yield stack


async def some_metadata(lake: Lakehouse, on: Catalogs) -> str:
    """Metadata that any number of tables can be registered with, where a test is not about what is in them."""
    (location,) = (await merged(lake, on, new_table(), 1)).tables.values()
    assert location is not None
    return location


async def test_a_branch_is_seen_by_itself_only(lake: Lakehouse, on: Catalogs, branch: str, table: Qualified) -> None:
    await merged(lake, on, table, 1)
    here, other = await new_branch(lake), await new_branch(lake)

    append(on(here), table, 2)

    assert read(on(here), table) == [1, 2]
    assert read(on(other), table) == [1]
    assert read(on(MAIN), table) == [1]
    assert not on(branch).table_exists(table)


async def test_a_branch_does_not_see_what_main_gets_later(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    await merged(lake, on, table, 1)
    branch = await new_branch(lake)

    later = new_table()
    await merged(lake, on, table, 2)
    await merged(lake, on, later, 1)

    assert read(on(branch), table) == [1]
    assert not on(branch).table_exists(later)
    assert read(on(MAIN), table) == [1, 2]


async def test_a_merge_puts_the_tables_on_main(lake: Lakehouse, on: Catalogs, branch: str, table: Qualified) -> None:
    run_id = uuid4()
    append(on(branch), table, 1, 2)

    merge = await lake.merge(branch, run_id, 3)

    assert merge is not None
    assert merge == await lake.find_merge(run_id, BEGINNING)
    assert (merge.run_id, merge.attempt, merge.snapshot) == (run_id, 3, await lake.head())
    assert merge.tables == {table: await lake.location(table)}
    assert read(on(MAIN), table) == [1, 2]


async def test_duckdb_reads_what_was_written(
    lake: Lakehouse, on: Catalogs, table: Qualified, engine: duckdb.DuckDBPyConnection
) -> None:
    await merged(lake, on, table, 1, 2)
    await merged(lake, on, table, 3)

    location = await lake.location(table)

    assert engine.execute("select n from iceberg_scan(?) order by n", [location]).fetchall() == [(1,), (2,), (3,)]


async def test_a_branch_without_changes_merges_nothing(lake: Lakehouse, branch: str) -> None:
    head = await lake.head()

    assert await lake.merge(branch, uuid4(), 1) is None
    assert await lake.head() == head
    assert not await lake.is_closed(branch)


async def test_a_run_is_merged_once(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    run_id = uuid4()
    first = await merged(lake, on, table, 1, run_id=run_id)
    second = await new_branch(lake)
    append(on(second), table, 2)

    assert await lake.merge(second, run_id, 2) == first
    assert await lake.merge("run-that-never-was", run_id, 2) == first
    assert read(on(MAIN), table) == [1]


async def test_a_merge_is_found_only_after_the_snapshot_asked_for(
    lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    before = await lake.head()
    run_id = uuid4()
    merge = await merged(lake, on, table, 1, run_id=run_id)

    assert await lake.find_merge(run_id, before) == merge
    assert await lake.find_merge(run_id, merge.snapshot) is None
    assert await lake.find_merge(uuid4(), BEGINNING) is None


async def test_both_changed_a_table_and_the_second_merge_is_refused(
    lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await merged(lake, on, table, 1)
    first, second = await new_branch(lake), await new_branch(lake)
    untouched = new_table()
    append(on(first), table, 2)
    append(on(second), table, 3)
    append(on(second), untouched, 3)
    await lake.merge(first, uuid4(), 1)
    head = await lake.head()

    with pytest.raises(MergeConflict, match=str(table)) as conflict:
        await lake.merge(second, uuid4(), 1)

    assert conflict.value.tables == (table,)
    assert conflict.value.details == {"tables": [str(table)]}
    assert await lake.head() == head
    assert await lake.location(untouched) is None
    assert read(on(MAIN), table) == [1, 2]


async def test_both_created_a_table_and_the_second_merge_is_refused(
    lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    first, second = await new_branch(lake), await new_branch(lake)
    append(on(first), table, 1)
    append(on(second), table, 2)
    assert on(first).load_table(table).location() != on(second).load_table(table).location()
    await lake.merge(first, uuid4(), 1)

    with pytest.raises(MergeConflict, match=str(table)):
        await lake.merge(second, uuid4(), 1)

    assert read(on(MAIN), table) == [1]


async def test_branches_of_different_tables_both_merge(lake: Lakehouse, on: Catalogs) -> None:
    first, second = await new_branch(lake), await new_branch(lake)
    one, two = new_table(), new_table()
    append(on(first), one, 1)
    append(on(second), two, 2)

    await lake.merge(first, uuid4(), 1)
    await lake.merge(second, uuid4(), 1)

    assert (read(on(MAIN), one), read(on(MAIN), two)) == ([1], [2])


async def test_readers_see_both_tables_of_a_merge_or_neither(lake: Lakehouse, on: Catalogs) -> None:
    one, two = new_table(), new_table()
    location = await some_metadata(lake, on)
    seen: set[int] = set()
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            tables = await lake.tables()
            assert (one in tables) == (two in tables)
            seen.add(len({tables.get(one), tables.get(two)}))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(watch())
        for _ in range(10):
            branch = await new_branch(lake)
            if on(branch).table_exists(one):
                on(branch).drop_table(one)
                on(branch).drop_table(two)
            else:
                on(branch).register_table(one, location)
                on(branch).register_table(two, location)
            assert await lake.merge(branch, uuid4(), 1) is not None
        stop.set()

    assert seen == {1}


async def test_a_closed_branch_takes_no_commit_and_no_merge(
    lake: Lakehouse, on: Catalogs, branch: str, table: Qualified
) -> None:
    append(on(branch), table, 1)
    loaded = on(branch).load_table(table)

    await lake.close_branch(branch)
    await lake.close_branch(branch)

    with pytest.raises(BranchClosed):
        loaded.append(rows(2))
    with pytest.raises(BranchClosed):
        append(on(branch), new_table(), 1)
    with pytest.raises(BranchClosed):
        on(branch).drop_table(table)
    with pytest.raises(BranchClosed):
        await lake.merge(branch, uuid4(), 1)
    with pytest.raises(BranchClosed):
        await lake.create_branch(branch)
    assert await lake.is_closed(branch)
    assert read(on(branch), table) == [1]
    assert await lake.location(table) is None


async def test_a_merged_branch_takes_no_commit_and_no_second_merge(
    lake: Lakehouse, on: Catalogs, branch: str, table: Qualified
) -> None:
    append(on(branch), table, 1)
    await lake.merge(branch, None, None)

    with pytest.raises(BranchClosed):
        append(on(branch), table, 2)
    with pytest.raises(BranchClosed):
        await lake.merge(branch, None, None)


async def test_closing_a_name_keeps_the_branch_from_being_made(lake: Lakehouse) -> None:
    name = f"run-{uuid4()}-1"

    await lake.close_branch(name)

    with pytest.raises(BranchClosed):
        await lake.create_branch(name)
    with pytest.raises(BranchClosed):
        await lake.merge(name, uuid4(), 1)


async def test_what_is_missing_is_not_found(lake: Lakehouse, on: Catalogs, branch: str, table: Qualified) -> None:
    name = "run-that-never-was"

    for attempt in (
        lake.merge(name, uuid4(), 1),
        lake.is_closed(name),
        lake.tables(name),
        lake.location(table, name),
        lake.tables("1" * 12),
        lake.drop_table(branch, table),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NoSuchTableError):
        on(branch).load_table(table)
    with pytest.raises(NoSuchNamespaceError):
        append(on(branch), Qualified("nowhere", "bronze", "t"), 1)
    await lake.delete_branch(name)


async def test_a_branch_is_made_once(lake: Lakehouse, branch: str) -> None:
    for name in (branch, MAIN):
        with pytest.raises(AlreadyExists):
            await lake.create_branch(name)
    with pytest.raises(Invalid):
        await lake.create_branch("0a1")


async def test_main_changes_by_merges_only(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    await merged(lake, on, table, 1)

    with pytest.raises(Forbidden):
        append(on(MAIN), table, 2)
    with pytest.raises(Forbidden):
        append(on(MAIN), new_table(), 2)
    for attempt in (lake.close_branch(MAIN), lake.delete_branch(MAIN), lake.merge(MAIN, None, None)):
        with pytest.raises(Invalid):
            await attempt


async def test_a_table_is_dropped_by_branch_and_merge(
    lake: Lakehouse, on: Catalogs, table: Qualified, engine: duckdb.DuckDBPyConnection
) -> None:
    first = await merged(lake, on, table, 1)
    branch = await new_branch(lake)

    await lake.drop_table(branch, table)
    assert await lake.location(table) is not None
    dropped = await lake.merge(branch, None, None)

    assert dropped is not None
    assert dropped.tables == {table: None}
    assert table not in await lake.tables()
    assert [change.location for change in await lake.history(table, 10)] == [None, first.tables[table]]
    old = await lake.location(table, first.snapshot)
    assert engine.execute("select n from iceberg_scan(?)", [old]).fetchall() == [(1,)]


async def test_a_dropped_table_can_be_created_again(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    await merged(lake, on, table, 1)
    branch = await new_branch(lake)
    before = on(branch).load_table(table).location()
    on(branch).drop_table(table)
    append(on(branch), table, 2)

    await lake.merge(branch, uuid4(), 1)

    assert read(on(MAIN), table) == [2]
    assert on(MAIN).load_table(table).location() != before


async def test_made_and_dropped_on_a_branch_is_no_change(
    lake: Lakehouse, on: Catalogs, branch: str, table: Qualified
) -> None:
    append(on(branch), table, 1)
    on(branch).drop_table(table)

    assert await lake.merge(branch, uuid4(), 1) is None


async def test_a_drop_conflicts_with_a_write(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    await merged(lake, on, table, 1)
    branch = await new_branch(lake)
    await lake.drop_table(branch, table)
    await merged(lake, on, table, 2)

    with pytest.raises(MergeConflict):
        await lake.merge(branch, None, None)


async def test_history_is_the_log_of_merges(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    runs = [uuid4() for _ in range(5)]
    merges = [await merged(lake, on, table, number, run_id=run) for number, run in enumerate(runs)]
    await merged(lake, on, new_table(), 1)

    newest = await lake.history(table, 3)
    older = await lake.history(table, 3, newest[-1].snapshot)

    assert [change.run_id for change in newest + older] == runs[::-1]
    assert [change.location for change in newest + older] == [merge.tables[table] for merge in merges[::-1]]
    assert [change.at for change in newest + older] == [merge.at for merge in merges[::-1]]


async def test_an_old_snapshot_stays_readable(
    lake: Lakehouse, on: Catalogs, table: Qualified, engine: duckdb.DuckDBPyConnection
) -> None:
    before = await lake.head()
    merges = [await merged(lake, on, table, number) for number in range(3)]
    branch = await new_branch(lake)
    on(branch).load_table(table).overwrite(rows(99))
    await lake.merge(branch, uuid4(), 1)

    async def at(snapshot: str) -> list[int]:
        location = await lake.location(table, snapshot)
        return [n for (n,) in engine.execute("select n from iceberg_scan(?) order by n", [location]).fetchall()]

    assert table not in await lake.tables(before)
    assert [await at(merge.snapshot) for merge in merges] == [[0], [0, 1], [0, 1, 2]]
    assert await at(MAIN) == await at(await lake.head()) == [99]
    assert (await lake.tables(merges[1].snapshot))[table] == merges[1].tables[table]


async def test_old_closed_branches_are_swept(lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    opened, closed, done = [await new_branch(lake) for _ in range(3)]
    append(on(done), table, 1)
    await lake.merge(done, uuid4(), 1)
    await lake.close_branch(closed)

    assert {opened, closed, done}.isdisjoint(await lake.sweep_branches(timedelta(hours=1)))
    assert set(await lake.sweep_branches(timedelta(0))) >= {closed, done}

    names = {branch.name for branch in await lake.branches("run-")}
    assert opened in names
    assert names.isdisjoint({closed, done, MAIN})
    assert read(on(MAIN), table) == [1]


async def test_a_deleted_branch_is_forgotten(lake: Lakehouse, on: Catalogs, branch: str, table: Qualified) -> None:
    append(on(branch), table, 1)

    await lake.delete_branch(branch)

    assert await lake.branches(branch) == []
    with pytest.raises(NotFound):
        on(branch).load_table(table)
    await lake.create_branch(branch)
    assert not on(branch).table_exists(table)


async def test_branches_are_listed_by_prefix(lake: Lakehouse) -> None:
    run = f"run-{uuid4()}"
    for attempt in (1, 2):
        await lake.create_branch(f"{run}-{attempt}")
    await lake.close_branch(f"{run}-1")

    branches = await lake.branches(f"{run}-")

    assert [(b.name, b.closed_at is not None) for b in branches] == [(f"{run}-1", True), (f"{run}-2", False)]


async def test_the_second_of_two_commits_on_one_branch_starts_from_the_first(
    on: Catalogs, branch: str, table: Qualified
) -> None:
    append(on(branch), table, 1)
    one, two = on(branch).load_table(table), on(branch).load_table(table)

    one.append(rows(2))
    try:
        two.append(rows(3))
    except (CommitFailedException, ValidationException):
        # Without the snapshot that it started from, PyIceberg cannot retry.
        two = on(branch).load_table(table)
        two.append(rows(3))

    assert read(on(branch), table) == [1, 2, 3]
    one.refresh()
    with pytest.raises(TableAlreadyExistsError):
        on(branch).create_table(table, rows().schema)


async def test_of_commits_that_come_at_once_one_is_made(lake: Lakehouse, branch: str, table: Qualified) -> None:
    expected = None
    for _ in range(3):
        places = [f"s3://rat/{uuid4()}.metadata.json" for _ in range(8)]
        files = [MetadataFile(place, snapshot_id=None, schema_id=0, spec_id=0, sort_order_id=0) for place in places]

        outcomes = await asyncio.gather(
            *(lake.commit(branch, table, expected, file) for file in files), return_exceptions=True
        )

        made = [place for place, outcome in zip(places, outcomes, strict=True) if outcome is None]
        assert len(made) == 1
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict] * 7
        expected = await lake.location(table, branch)
        assert expected == made[0]
    with pytest.raises(Forbidden):
        await lake.commit(MAIN, table, None, files[0])
    await lake.commit(branch, table, expected, None)
    assert await lake.location(table, branch) is None


async def test_a_stale_overwrite_is_refused(on: Catalogs, branch: str, table: Qualified) -> None:
    append(on(branch), table, 1)
    stale = on(branch).load_table(table)
    on(branch).load_table(table).update_schema().add_column("later", StringType()).commit()

    with pytest.raises(CommitFailedException):
        stale.update_schema().add_column("other", StringType()).commit()


async def test_a_table_keeps_few_snapshots_and_all_rows(on: Catalogs, branch: str, table: Qualified) -> None:
    for number in range(25):
        append(on(branch), table, number)

    metadata = on(branch).load_table(table).metadata

    assert len(metadata.snapshots) in (1, 20)
    assert read(on(branch), table) == list(range(25))


async def test_twenty_branches_of_twenty_tables_merge_at_once(lake: Lakehouse, on: Catalogs) -> None:
    location = await some_metadata(lake, on)
    branches = {await new_branch(lake): [new_table() for _ in range(20)] for _ in range(20)}
    for branch, tables in branches.items():
        for table in tables:
            on(branch).register_table(table, location)
    before = len(await lake.tables())

    merges = await asyncio.gather(*(lake.merge(branch, uuid4(), 1) for branch in branches))

    seen = sorted([len(await lake.tables(merge.snapshot)) for merge in merges if merge])
    assert seen == [before + 20 * number for number in range(1, 21)]
    on_main = await lake.tables()
    assert all(table in on_main for tables in branches.values() for table in tables)


async def test_either_the_merge_or_the_closing_wins(lake: Lakehouse, on: Catalogs) -> None:
    for _ in range(20):
        branch, table, run_id = await new_branch(lake), new_table(), uuid4()
        on(branch).create_table(table, rows().schema)

        merge, _ = await asyncio.gather(
            lake.merge(branch, run_id, 1), lake.close_branch(branch), return_exceptions=True
        )

        assert isinstance(merge, BranchClosed | Merged)
        found = await lake.find_merge(run_id, BEGINNING)
        assert found == (merge if isinstance(merge, Merged) else None)
        assert (await lake.location(table) is not None) == isinstance(merge, Merged)


async def test_query_and_catalog_only_read(stack: Stack, lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    merge = await merged(lake, on, table, 1)
    branch = await new_branch(lake)

    for role in ("query", "catalog"):
        async with lakehouse(stack.settings, role) as reader:
            assert await reader.location(table) == merge.tables[table]
            assert await reader.head() == await lake.head()
            assert await reader.history(table, 1)
            for attempt in (
                reader.create_branch(f"run-{uuid4()}-1"),
                reader.close_branch(branch),
                reader.merge(branch, None, None),
                reader.ensure_namespace("test", "gold"),
                reader.drop_table(branch, table),
            ):
                with pytest.raises(Forbidden):
                    await attempt


async def test_a_kill_leaves_all_of_a_merge_or_nothing(fragile: Stack) -> None:
    async with lakehouse(fragile.settings, "runner") as lake:
        await lake.ensure_namespace("test", "bronze")
        with catalogs(fragile.settings, "runner") as on:
            for _ in range(3):
                await merge_through_a_kill(fragile, lake, on)


async def merge_through_a_kill(stack: Stack, lake: Lakehouse, on: Catalogs) -> None:
    location = await some_metadata(lake, on)
    branches = {await new_branch(lake): [new_table() for _ in range(5)] for _ in range(20)}
    for branch, tables in branches.items():
        for table in tables:
            on(branch).register_table(table, location)
    before = await lake.head()
    runs = {branch: uuid4() for branch in branches}
    acknowledged: dict[str, Merged] = {}

    async def merge_all() -> None:
        for branch, run_id in runs.items():
            merge = await lake.merge(branch, run_id, 1)
            assert merge is not None
            acknowledged[branch] = merge

    async def kill() -> None:
        enough = random.randint(1, 15)
        await eventually(lambda: len(acknowledged) >= enough)
        await stack.kill("lakehouse")

    merging, _ = await asyncio.gather(merge_all(), kill(), return_exceptions=True)

    assert isinstance(merging, Unavailable | None)
    await stack.until_ready("lakehouse")
    on_main = await lake.tables()
    found = {branch: await lake.find_merge(run_id, before) for branch, run_id in runs.items()}
    for branch, tables in branches.items():
        assert {table in on_main for table in tables} == {found[branch] is not None}
    assert acknowledged.items() <= {branch: merge for branch, merge in found.items() if merge}.items()
    in_order = sorted((merge for merge in found.values() if merge), key=lambda merge: merge.at)
    assert await lake.head() == in_order[-1].snapshot


async def test_a_write_without_the_object_store_is_unavailable(fragile: Stack, table: Qualified) -> None:
    async with lakehouse(fragile.settings, "runner") as lake:
        await lake.ensure_namespace("test", "bronze")
        branch = await new_branch(lake)
        with catalogs(fragile.settings, "runner") as on:
            catalog = on(branch)
            async with fragile.away("object_store"):
                with pytest.raises(Unavailable):
                    catalog.create_table(table, rows().schema)
                with pytest.raises(Unavailable), storage_errors(str(table)):
                    append(catalog, table, 1)

            append(catalog, table, 1)
            assert read(catalog, table) == [1]
