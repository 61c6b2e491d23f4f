"""Many small files become few beside the runs, the rows stay, and no run is lost by it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import duckdb
import psutil
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from contracts.maintenance import UpkeepJob
from contracts.names import Qualified
from contracts.runs import RunStatus
from infra.stacks.stack import Stack
from services.runner.domain import FailureKind
from services.runner.engine.compaction import commit_rewritten, rewrite_small_files
from services.runner.engine.session import open_connection
from services.runner.frames import (
    AskLocations,
    AskMove,
    CommitOn,
    CompactOrder,
    Failed,
    FromProcess,
    Moved,
    Rewritten,
    Validated,
    ValidationOrder,
)
from services.runner.locating import locate
from services.runner.pool import Process, pool
from services.runner.service import serve
from shared.lakehouse.port import MAIN, Lakehouse, MergeConflict
from shared.object_store import ObjectStore
from tests.lives import command_of, signalled
from tests.running import Surroundings, surroundings
from tests.tables import Catalogs, append, merged, new_branch, new_table, read, rows
from tests.waiting import eventually

MIN_FILES = 20
APPENDING = "-- @merge_strategy: append_only\n-- @max_retries: 0\n"


@pytest.fixture(scope="module")
async def around(stack: Stack) -> AsyncIterator[Surroundings]:
    settings = stack.settings.model_copy(
        update={"runner_workers": 1, "compaction_min_files": MIN_FILES, "run_lease_seconds": 3.0}
    )
    async with surroundings(settings) as around, serve(settings):
        await around.tables.ensure_namespace("test", "bronze")
        yield around


@pytest.fixture(scope="module")
def lake(around: Surroundings) -> Lakehouse:
    return around.tables


@pytest.fixture(scope="module")
def engine(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as a process of a run has it."""
    spill = str(tmp_path_factory.mktemp("spill"))
    with open_connection(stack.settings, threads=2, spill_directory=spill) as connection:
        yield connection


async def scattered(lake: Lakehouse, on: Catalogs, table: Qualified, files: int) -> None:
    """A table on main with so many files of one row each: 0, 1, 2 …"""
    branch = await new_branch(lake)

    def write() -> None:
        for number in range(files):
            append(on(branch), table, number)

    await asyncio.to_thread(write)
    assert await lake.merge(branch, uuid4(), 1) is not None


def files_of(table: Table) -> int:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return int(snapshot.summary["total-data-files"] or 0)


def files_on_main(on: Catalogs, table: Qualified) -> int:
    return files_of(on(MAIN).load_table(tuple(table)))


async def compacted(on: Catalogs, table: Qualified) -> int:
    """Wait until a table has few files, and say how many."""
    found = await eventually(lambda: 0 < (files := files_on_main(on, table)) < MIN_FILES and files, within=60)
    return int(found)


@pytest.mark.timeout(600)
async def test_after_a_hundred_appends_few_files_hold_the_same_rows(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, 110)

    run = await around.request(f"{APPENDING}select 1000 as n", pipeline=str(table))
    ended = await around.finished(run)

    assert ended.status is RunStatus.SUCCESS
    # What the run has just added may be among them or not.
    assert await compacted(on, table) <= 2
    assert read(on(MAIN), table) == [*range(110), 1000]
    assert sorted(await around.rows(str(table))) == [(n,) for n in [*range(110), 1000]]
    newest, *_ = await lake.history(table, 10)
    assert newest.run_id is None
    snapshot = on(MAIN).load_table(tuple(table)).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation is Operation.REPLACE
    assert snapshot.summary["total-records"] == "111"
    assert await eventually(lambda: [end for end in around.upkeep_ends if end.table == str(table)])
    assert not await lake.branches("upkeep-")


async def test_earlier_snapshots_stay_readable(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, MIN_FILES)
    before = await lake.head()

    await around.finished(await around.request(f"{APPENDING}select 99 as n", pipeline=str(table)))
    await compacted(on, table)

    location = await lake.location(table, before)
    assert location is not None
    old = await asyncio.to_thread(on(MAIN).table_at, table, location)  # type: ignore[attr-defined]
    assert files_of(old) == MIN_FILES
    assert sorted(old.scan().to_arrow()["n"].to_pylist()) == list(range(MIN_FILES))


async def test_a_few_files_are_left_alone(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, 3)

    await around.finished(await around.request(f"{APPENDING}select 99 as n", pipeline=str(table)))
    # What comes after it is looked at after it.
    other = new_table()
    await scattered(lake, on, other, MIN_FILES)
    await around.finished(await around.request(f"{APPENDING}select 99 as n", pipeline=str(other)))
    await compacted(on, other)

    assert files_on_main(on, table) == 4
    assert str(table) not in {claim.table for claim in around.upkeep_claims}


async def test_a_compaction_waits_for_a_run_and_takes_what_it_wrote(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, MIN_FILES)
    around.under_way = uuid4()
    await around.finished(await around.request(f"{APPENDING}select 98 as n", pipeline=str(table)))
    # It is ready, asks whether a run is under way, and waits.
    await eventually(lambda: len([one for one in around.upkeep_claims if one.table == str(table)]) >= 3, within=60)

    await merged(lake, on, table, 99)
    assert files_on_main(on, table) == MIN_FILES + 2
    around.under_way = None

    assert await compacted(on, table) <= 3
    assert read(on(MAIN), table) == [*range(MIN_FILES), 98, 99]


async def test_short_runs_one_after_the_other_do_not_keep_a_compaction_away(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, MIN_FILES)
    around.under_way = uuid4()
    await around.finished(await around.request(f"{APPENDING}select 98 as n", pipeline=str(table)))

    async def another_is_under_way() -> bool:
        around.under_way = uuid4()
        return files_on_main(on, table) < MIN_FILES

    await eventually(another_is_under_way, within=60)
    around.under_way = None

    assert read(on(MAIN), table) == [*range(MIN_FILES), 98]


async def test_a_run_leaves_a_compaction_the_moment_before_its_end(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, MIN_FILES)
    around.under_way = uuid4()
    await around.finished(await around.request(f"{APPENDING}select 98 as n", pipeline=str(table)))
    await eventually(lambda: len([one for one in around.upkeep_claims if one.table == str(table)]) >= 2, within=60)

    run = await around.request(f"{APPENDING}select 99 as n", pipeline=str(table))
    around.under_way = run.id
    ended = await around.finished(run)

    # It is under way for catalog, and has merged: nothing of what is compacted then is in its way, or it in that one's.
    assert ended.attempt == 1
    assert await compacted(on, table) <= 3
    assert read(on(MAIN), table) == [*range(MIN_FILES), 98, 99]
    around.under_way = None


async def test_a_process_that_is_killed_in_the_middle_leaves_the_table_good(
    around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    await scattered(lake, on, table, MIN_FILES)
    around.under_way = uuid4()
    known = len(around.upkeep_ends)
    await around.finished(await around.request(f"{APPENDING}select 98 as n", pipeline=str(table)))
    await eventually(lambda: len([one for one in around.upkeep_claims if one.table == str(table)]) >= 2, within=60)

    children = psutil.Process().children()
    signalled([one for one in children if "services.runner.process" in command_of(one)], signal.SIGKILL)
    around.under_way = None

    ends = await eventually(lambda: [end for end in around.upkeep_ends[known:] if end.table == str(table)])
    assert (ends[0].job, ends[0].is_done) == (UpkeepJob.COMPACT, False)
    assert read(on(MAIN), table) == [*range(MIN_FILES), 98]
    await around.finished(await around.request(f"{APPENDING}select 99 as n", pipeline=str(table)))
    assert await compacted(on, table) <= 3
    assert read(on(MAIN), table) == [*range(MIN_FILES), 98, 99]


async def test_a_branch_that_is_closed_under_a_compaction_ends_it_and_not_its_process(
    stack: Stack, lake: Lakehouse, on: Catalogs, objects: ObjectStore, table: Qualified
) -> None:
    await scattered(lake, on, table, 5)
    branch = await new_branch(lake)

    async def said(process: Process, order: CompactOrder | CommitOn | ValidationOrder, at: str) -> FromProcess:
        await process.send(order)
        while True:
            match await process.receive():
                case AskLocations(tables=tables):
                    await process.send(await locate(lake, objects, tables, at))
                case AskMove():
                    await process.send(Moved(refused="closed", message=f"{at} is closed"))
                case answer:
                    return answer

    without_role = stack.settings.model_copy(update={"s3_run_role": None})
    async with pool(without_role) as processes, processes.process() as process:
        assert isinstance(await said(process, CompactOrder(table=str(table), at_least=5), MAIN), Rewritten)
        failed = await said(process, CommitOn(branch=branch), branch)
        goes_on = await said(process, ValidationOrder(pipeline=str(table), files={"pipeline.sql": "select 1"}), MAIN)

    assert isinstance(failed, Failed)
    assert (failed.kind, failed.error) == (FailureKind.CLOSED, f"{branch} is closed")
    assert isinstance(goes_on, Validated)


async def test_a_run_that_merges_first_wins_and_nothing_of_it_is_lost(
    lake: Lakehouse, on: Catalogs, engine: duckdb.DuckDBPyConnection, table: Qualified
) -> None:
    await scattered(lake, on, table, 5)
    rewritten = await asyncio.to_thread(rewrite_small_files, engine, on(MAIN), table, at_least=5)
    assert rewritten is not None
    first, run = await new_branch(lake), await new_branch(lake)
    append(on(run), table, 100)
    assert await asyncio.to_thread(commit_rewritten, on(first), table, rewritten)
    await lake.merge(run, uuid4(), 1)

    with pytest.raises(MergeConflict):
        await lake.merge(first, None, None)
    second = await new_branch(lake)
    assert await asyncio.to_thread(commit_rewritten, on(second), table, rewritten)
    assert await lake.merge(second, None, None) is not None

    assert files_on_main(on, table) == 2
    assert read(on(MAIN), table) == [0, 1, 2, 3, 4, 100]


async def test_what_was_rewritten_is_given_up_when_the_table_is_another(
    lake: Lakehouse, on: Catalogs, engine: duckdb.DuckDBPyConnection, table: Qualified
) -> None:
    await scattered(lake, on, table, 5)
    rewritten = await asyncio.to_thread(rewrite_small_files, engine, on(MAIN), table, at_least=5)
    assert rewritten is not None
    overwriting, changing, dropping = [await new_branch(lake) for _ in range(3)]
    on(overwriting).load_table(tuple(table)).overwrite(rows(7))
    with on(changing).load_table(tuple(table)).update_schema() as update:
        update.add_column("m", on(MAIN).load_table(tuple(table)).schema().find_type("n"))
    on(dropping).drop_table(tuple(table))

    for branch in (overwriting, changing, dropping):
        assert not await asyncio.to_thread(commit_rewritten, on(branch), table, rewritten)
    assert read(on(overwriting), table) == [7]


async def test_files_are_rewritten_as_the_table_is_now(
    lake: Lakehouse, on: Catalogs, engine: duckdb.DuckDBPyConnection, table: Qualified
) -> None:
    await scattered(lake, on, table, 4)
    branch = await new_branch(lake)
    with on(branch).load_table(tuple(table)).update_schema() as update:
        update.add_column("m", on(MAIN).load_table(tuple(table)).schema().find_type("n"))
    await lake.merge(branch, uuid4(), 1)

    rewritten = await asyncio.to_thread(rewrite_small_files, engine, on(MAIN), table, at_least=4)
    assert rewritten is not None
    branch = await new_branch(lake)
    assert await asyncio.to_thread(commit_rewritten, on(branch), table, rewritten)
    await lake.merge(branch, None, None)

    found = on(MAIN).load_table(tuple(table)).scan().to_arrow().to_pylist()
    assert sorted(row["n"] for row in found) == [0, 1, 2, 3]
    assert {row["m"] for row in found} == {None}
    assert await asyncio.to_thread(rewrite_small_files, engine, on(MAIN), table, at_least=2) is None
