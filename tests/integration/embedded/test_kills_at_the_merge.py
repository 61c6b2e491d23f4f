"""The runner is killed, or the run cancelled, around its merge.

It is aimed: a lock that the test holds shows when the merge is asked for.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from contracts.health import CheckHealth
from contracts.runs import RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.database import database, transaction
from shared.settings import Settings
from tests.processes import separate
from tests.running import RunOf, Surroundings, surroundings
from tests.waiting import eventually


@pytest.fixture
def brief(stack: Stack) -> Settings:
    """What a killed runner held comes again soon."""
    return stack.settings.model_copy(
        update={"runner_workers": 1, "run_lease_seconds": 2.0, "run_heartbeat_seconds": 1.0}
    )


@pytest.fixture
async def around(brief: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(brief) as around:
        yield around


@pytest.fixture
async def lakehouse_tables(stack: Stack, around: Surroundings) -> AsyncIterator[asyncpg.Pool]:
    async with database(stack.settings, "runner", None, schema="lakehouse") as tables:
        yield tables


@asynccontextmanager
async def main_is_held(tables: asyncpg.Pool) -> AsyncIterator[None]:
    """Let no merge into main happen until the block is left."""
    async with transaction(tables) as connection:
        await connection.execute("select from branches where name = 'main' for update")
        yield


async def a_merge_waits(tables: asyncpg.Pool) -> bool:
    """Whether somebody has asked to merge and waits for main."""
    waiting: bool = await tables.fetchval(
        """
        select exists (
          select from pg_stat_activity
          where wait_event_type = 'Lock' and query like '%branches where name = ''main'' for update'
        )
        """
    )
    return waiting


async def kept_report(around: Surroundings, run: RunOf) -> bytes:
    return await around.code.get(f"default/runs/{run.id}/1.json")


async def test_a_runner_that_is_killed_between_report_and_merge_is_followed_by_the_next_attempt(
    around: Surroundings, brief: Settings, lakehouse_tables: asyncpg.Pool, tmp_path: Path
) -> None:
    run = await around.request("select 1 as id", config="merge_strategy: append_only")
    async with separate(brief, "runner", logs=tmp_path) as [runner]:
        async with main_is_held(lakehouse_tables):
            await eventually(lambda: a_merge_waits(lakehouse_tables), within=60)
            assert await kept_report(around, run)
            await runner.kill()
        await runner.start()
        ended = await around.finished(run, within=60)

    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 2)
    assert run.reasons == ["delivery", "delivery"]
    assert await around.rows(run.pipeline) == [(1,)]
    assert await around.merges(run) == 1
    assert await around.open_branches(run) == []


async def test_a_runner_that_is_killed_between_merge_and_its_word_is_followed_by_one_that_finds_the_run_on_main(
    around: Surroundings, brief: Settings, lakehouse_tables: asyncpg.Pool, stack: Stack, tmp_path: Path
) -> None:
    run = await around.request("select 1 as id", config="merge_strategy: append_only")
    async with separate(brief, "runner", logs=tmp_path) as [runner]:
        try:
            async with main_is_held(lakehouse_tables):
                await eventually(lambda: a_merge_waits(lakehouse_tables), within=60)
                psutil.Process(stack.pids["nats"]).suspend()
            await eventually(lambda: around.merges(run))
            await runner.kill()
        finally:
            # What the runner may have said meanwhile is lost with a server that never read it.
            await stack.kill("nats")
        await stack.until_ready("nats")
        assert run.ended is None
        await runner.start()
        ended = await around.finished(run, within=60)

    assert (ended.status, ended.attempt, ended.rows_written) == (RunStatus.SUCCESS, 1, 1)
    assert run.reasons == ["delivery", "delivery"]
    assert await around.rows(run.pipeline) == [(1,)]
    assert await around.merges(run) == 1
    assert await around.open_branches(run) == []


async def test_a_run_that_is_cancelled_while_it_merges_is_a_success(
    around: Surroundings, brief: Settings, lakehouse_tables: asyncpg.Pool
) -> None:
    async with serve(brief):
        run = await around.request("select 1 as id", config="timeout_seconds: 600")
        async with main_is_held(lakehouse_tables):
            await eventually(lambda: a_merge_waits(lakehouse_tables), within=60)
            await around.cancel(run)
            # It has heard of it by the time it answers what it was asked later.
            await around.gateway.ask(CheckHealth(service="runner"))
            assert run.ended is None
        ended = await around.finished(run, within=60)

    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 1)
    assert await around.merges(run) == 1
    assert await around.rows(run.pipeline) == [(1,)]
    assert [end.status for end in run.ends] == [RunStatus.SUCCESS]
