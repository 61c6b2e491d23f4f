"""A stack lives through deaths, keeps its data, and lets nobody do more than he may."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from infra.stacks.stack import PARTS, Stack
from shared.errors import NotFound
from tests.marks import bus, database, find_data, leave_data
from tests.stacks import StackIn
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def mortal(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which servers may be killed: that of the other tests must not see five deaths in a minute."""
    async with stack_in(tmp_path_factory.mktemp("mortal")) as mortal:
        yield mortal


@pytest.mark.usefixtures("kind")  # what containers hold in tests goes with them
async def test_a_second_start_finds_all_data_and_the_same_addresses(stack_in: StackIn, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    async with stack_in(tmp_path) as first:
        await leave_data(first, mark)

    async with stack_in(tmp_path) as second:
        assert await eventually(partial(find_data, second, mark))
        # Tokens are signed anew, with the same key.
        tokens = {"nessie_tokens": first.settings.nessie_tokens}
        assert second.settings.model_copy(update=tokens) == first.settings


async def test_two_instances_run_beside_each_other(stack_in: StackIn, stack: Stack, tmp_path: Path) -> None:
    async with stack_in(tmp_path) as other:
        await leave_data(other, "other")
        await leave_data(stack, "this")

        assert await eventually(partial(find_data, other, "other"))
        assert await eventually(partial(find_data, stack, "this"))
        assert not set(stack.pids.values()) & set(other.pids.values())


@pytest.mark.parametrize("part", PARTS)
async def test_a_server_that_is_killed_comes_back_with_its_data(mortal: Stack, part: str) -> None:
    mark = uuid.uuid4().hex
    await leave_data(mortal, mark)
    pids = [mortal.pids[name] for name in mortal.playing(part)]

    await mortal.kill(part)
    await mortal.until_ready(part)

    assert not {mortal.pids[name] for name in mortal.playing(part)} & set(pids)
    assert await eventually(partial(find_data, mortal, mark))
    await leave_data(mortal, uuid.uuid4().hex)


async def test_postgres_comes_back_while_a_query_of_its_former_life_still_computes(mortal: Stack) -> None:
    async with database(mortal) as connection:
        computing = asyncio.create_task(connection.fetchval("select count(*) from generate_series(1, 1e12)"))
        async with database(mortal) as observer:
            query = "select count(*) from pg_stat_activity where query like '%1e12%' and state = 'active'"
            await eventually(lambda: observer.fetchval(f"select ({query}) > 1"))
        await mortal.kill("postgres")
        with pytest.raises(asyncpg.PostgresConnectionError):
            await computing

    async with asyncio.timeout(120):
        await mortal.until_ready("postgres")


async def test_streams_in_memory_are_there_again_after_nats_died(mortal: Stack) -> None:
    await mortal.kill("nats")
    await mortal.until_ready("nats")

    async with bus(mortal) as client:
        await client.jetstream().publish("log.run.1", b"a line")


async def test_a_role_reaches_its_own_schema_only(stack: Stack) -> None:
    async with database(stack, "catalog") as connection:
        await connection.execute("create table things (id int)")
        assert await connection.fetchval("select 'catalog.things'::regclass = 'things'::regclass")
        await connection.execute("drop table things")

        for statement in [
            "create table scheduler.things (id int)",
            "create table public.things (id int)",
            "create table lakehouse.things (id int)",
            "create schema mine",
            "set role runner",
        ]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_lakehouse_is_written_by_the_runner_and_read_by_query_and_catalog(stack: Stack) -> None:
    async with database(stack, "runner") as connection:
        await connection.execute("create table lakehouse.things as select 1 as id")
    try:
        for reader in ["query", "catalog"]:
            async with database(stack, reader) as connection:
                assert await connection.fetchval("select id from lakehouse.things") == 1
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("delete from lakehouse.things")
        async with database(stack, "scheduler") as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("select id from lakehouse.things")
    finally:
        async with database(stack, "runner") as connection:
            await connection.execute("drop table lakehouse.things")


async def test_a_wrong_password_is_refused(stack: Stack) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(stack.settings.postgres_url, user="catalog", password="guess")


async def test_a_publisher_may_request_runs_and_nothing_else(stack: Stack) -> None:
    async with bus(stack, "publisher") as client:
        jetstream = client.jetstream(timeout=60)
        assert (await jetstream.publish("event.order.paid", b"{}")).stream == "OUTSIDE"
        assert (await jetstream.publish("run.requested", b"{}")).stream == "EVENTS"
        with pytest.raises(TimeoutError):
            await jetstream.publish("run.finished", b"{}", timeout=1)


async def test_a_subscriber_reads_events_and_publishes_none(stack: Stack) -> None:
    mark = uuid.uuid4().hex.encode()
    async with bus(stack) as client:
        await client.jetstream().publish("table.changed", mark)

    async with bus(stack, "subscriber") as client:
        jetstream = client.jetstream(timeout=60)
        subscription = await jetstream.pull_subscribe("table.changed", stream="EVENTS")
        # Those of other tests come before it.
        while (message := (await subscription.fetch(1, timeout=60))[0]).data != mark:
            await message.ack()
        await message.ack_sync(timeout=60)
        with pytest.raises(TimeoutError):
            await jetstream.publish("table.changed", b"{}", timeout=1)
        with pytest.raises(TimeoutError):
            await client.jetstream(timeout=1).delete_stream("EVENTS")


async def test_a_stream_that_was_deleted_is_made_again(mortal: Stack) -> None:
    async with bus(mortal) as client:
        await client.jetstream().delete_stream("BUCKET")

        await eventually(lambda: client.jetstream().stream_info("BUCKET"))


@pytest.mark.parametrize("part", PARTS)
async def test_what_is_taken_away_stays_away_until_it_is_brought_back(mortal: Stack, part: str) -> None:
    mark = uuid.uuid4().hex
    await leave_data(mortal, mark)

    async with mortal.away(part):
        assert not set(mortal.playing(part)) & set(mortal.pids)
        await asyncio.sleep(1)
        assert not set(mortal.playing(part)) & set(mortal.pids)

    assert set(mortal.playing(part)) <= set(mortal.pids)
    assert await eventually(partial(find_data, mortal, mark))


async def test_a_server_that_nobody_knows_is_told_so(stack: Stack) -> None:
    with pytest.raises(NotFound, match="no server is called 'redis'"):
        await stack.kill("redis")
