"""What runners do for the lakehouse by themselves is one runner's at a time, and done now and then."""

import asyncio
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import psutil
import pytest

from contracts.maintenance import ClaimUpkeep, EndUpkeep, UpkeepClaimed, UpkeepJob
from contracts.names import Qualified
from contracts.pipelines import CreatePipeline, PublishPipeline, ValidatePipeline, Validation
from contracts.runs import AttemptFinished, ClaimReason, ClaimRun, RequestRun, RunRequested, RunStatus
from infra.stacks.stack import Stack
from services.catalog.service import serve as serve_catalog
from services.runner.service import serve as serve_runner
from shared.bus import Bus
from shared.lakehouse.port import MAIN, Lakehouse
from tests.buses import playing_all
from tests.lives import command_of, signalled
from tests.running import Surroundings, surroundings
from tests.tables import Catalogs, append, new_branch, new_table, read
from tests.waiting import eventually


@pytest.fixture
async def bus(stack: Stack) -> AsyncIterator[Bus]:
    bus = playing_all(stack.settings)

    async def validate(_query: ValidatePipeline) -> Validation:
        return Validation(valid=True, files=[])

    bus.answer(ValidatePipeline, validate)
    async with serve_catalog(stack.settings), bus.running():
        yield bus


def table() -> str:
    return f"default.bronze.t_{uuid4().hex[:8]}"


async def claim(bus: Bus, holder: str, of: str | None, **facts: float) -> UpkeepClaimed:
    job = UpkeepJob.COLLECT if of is None else UpkeepJob.COMPACT
    query = ClaimUpkeep(job=job, table=of, holder=holder, **{"lease_seconds": 30.0, **facts})
    return await bus.ask(query)


async def test_a_job_is_one_runners_at_a_time(bus: Bus) -> None:
    one, other = table(), table()

    answers = await asyncio.gather(*(claim(bus, f"runner {number}", one) for number in range(6)))

    assert [answer.is_granted for answer in answers].count(True) == 1
    winner = next(f"runner {number}" for number, answer in enumerate(answers) if answer.is_granted)
    assert (await claim(bus, winner, one)).is_granted
    assert not (await claim(bus, "another", one)).is_granted
    assert (await claim(bus, "another", other)).is_granted
    await bus.ask(EndUpkeep(job=UpkeepJob.COMPACT, table=one, holder="another"))
    assert not (await claim(bus, "another", one)).is_granted
    await bus.ask(EndUpkeep(job=UpkeepJob.COMPACT, table=one, holder=winner))
    assert (await claim(bus, "another", one)).is_granted


async def test_a_job_whose_holder_is_gone_is_anybodys(bus: Bus) -> None:
    mine = table()
    assert (await claim(bus, "lost", mine, lease_seconds=0.2)).is_granted

    async def is_taken() -> bool:
        return (await claim(bus, "other", mine)).is_granted

    assert await eventually(is_taken)
    assert not (await claim(bus, "lost", mine)).is_granted


async def test_a_job_that_was_done_is_not_done_again_for_a_while(bus: Bus) -> None:
    mine = table()
    await claim(bus, "one", mine)
    await bus.ask(EndUpkeep(job=UpkeepJob.COMPACT, table=mine, holder="one"))

    assert not (await claim(bus, "two", mine, interval_seconds=60)).is_granted
    assert (await claim(bus, "two", mine, interval_seconds=0)).is_granted
    await bus.ask(EndUpkeep(job=UpkeepJob.COMPACT, table=mine, holder="two", is_done=False))

    async def is_due() -> bool:
        return (await claim(bus, "three", mine, interval_seconds=0.3)).is_granted

    assert await eventually(is_due)


async def test_who_looks_after_a_table_is_told_of_the_run_that_is_under_way(bus: Bus) -> None:
    pipeline = table()
    namespace, layer, name = pipeline.split(".")
    await bus.ask(CreatePipeline(namespace=namespace, layer=layer, name=name))
    await bus.ask(PublishPipeline(pipeline=pipeline))
    assert (await claim(bus, "one", pipeline)).run_under_way is None

    request = RunRequested(pipeline=pipeline, trigger="manual")
    run_id = (await bus.ask(RequestRun(request=request))).run_id
    assert (await claim(bus, "one", pipeline)).run_under_way == run_id
    await bus.ask(ClaimRun(run_id=run_id, delivery="c1", reason=ClaimReason.DELIVERY, queue_number=1, head="0"))
    assert (await claim(bus, "one", pipeline)).run_under_way == run_id
    await bus.publish(AttemptFinished(run_id=run_id, attempt=1, status=RunStatus.FAILED))

    async def is_idle() -> bool:
        return (await claim(bus, "one", pipeline)).run_under_way is None

    assert await eventually(is_idle)


async def test_files_are_collected_now_and_then_by_one_runner(stack: Stack) -> None:
    often = stack.settings.model_copy(update={"runner_workers": 1, "reaper_interval_minutes": 0.01})

    async with surroundings(often) as around, serve_runner(often):
        await eventually(lambda: len([end for end in around.upkeep_ends if end.is_done]) >= 2, within=200)

    collecting = [one for one in around.upkeep_claims if one.job is UpkeepJob.COLLECT]
    # A collection that takes long renews its claim, however long ago the last one was.
    renewed = (None, 0.0)
    assert {(one.table, one.interval_seconds) for one in collecting} - {renewed} == {(None, 0.6)}
    assert {one.job for one in around.upkeep_ends} == {UpkeepJob.COLLECT}


async def test_a_compaction_that_hangs_is_broken_off_and_other_tables_get_their_turn(
    stack: Stack, lake: Lakehouse, on: Catalogs
) -> None:
    hasty = stack.settings.model_copy(
        update={"runner_workers": 1, "compaction_min_files": 5, "compaction_timeout_seconds": 20.0}
    )
    async with surroundings(hasty) as around, serve_runner(hasty):
        hung, other = new_table(), new_table()
        around.under_way = uuid4()
        await grow(around, lake, on, hung)
        # What was rewritten waits for a moment without a run.
        await eventually(lambda: len([one for one in around.upkeep_claims if one.table == str(hung)]) >= 3, within=60)
        processes = [one for one in psutil.Process().children() if "services.runner.process" in command_of(one)]

        signalled(processes, signal.SIGSTOP)
        around.under_way = None

        await eventually(lambda: [end for end in around.upkeep_ends if end.table == str(hung)], within=60)
        signalled(processes, signal.SIGCONT)
        assert read(on(MAIN), hung) == [*range(5), 99]
        await grow(around, lake, on, other)
        await eventually(lambda: files_of(on, other) < 5, within=60)
        assert read(on(MAIN), other) == [*range(5), 99]


async def grow(around: Surroundings, lake: Lakehouse, on: Catalogs, table: Qualified) -> None:
    """A table of five files, and one more by a run."""
    branch = await new_branch(lake)
    for number in range(5):
        await asyncio.to_thread(append, on(branch), table, number)
    await lake.merge(branch, uuid4(), 1)
    run = await around.request("-- @merge_strategy: append_only\nselect 99 as n", pipeline=str(table))
    assert (await around.finished(run)).status is RunStatus.SUCCESS


def files_of(on: Catalogs, table: Qualified) -> int:
    snapshot = on(MAIN).load_table(tuple(table)).current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    return int(snapshot.summary["total-data-files"] or 0)
