"""The embedded stack lives through restarts and deaths, keeps its data, and leaves nothing behind."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest
from nats.aio.client import Client

from infra.stacks.embedded import embedded
from infra.stacks.stack import Stack
from shared.errors import Conflict, NotFound, Unavailable
from shared.object_store import object_store
from tests.waiting import eventually

PARENT = """
import asyncio, json, sys
from pathlib import Path
from infra.stacks.embedded import embedded

async def main():
    async with embedded(Path(sys.argv[1]), gateway_port=0) as stack:
        print(json.dumps(stack.pids), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack of which servers may be killed: that of the other tests must not see five deaths in a minute."""
    async with embedded(tmp_path_factory.mktemp("mortal"), gateway_port=0) as mortal:
        yield mortal


@asynccontextmanager
async def database(stack: Stack, role: str = "infra") -> AsyncIterator[asyncpg.Connection]:
    password = stack.settings.postgres_password(role)
    connection = await asyncpg.connect(stack.settings.postgres_url, user=role, password=password)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def bus(stack: Stack, user: str = "infra") -> AsyncIterator[Client]:
    async def ignore(_error: Exception) -> None: ...

    client = await nats.connect(
        stack.settings.nats_urls,
        user=user,
        password=stack.settings.nats_password(user),
        allow_reconnect=False,
        error_cb=ignore,
    )
    try:
        yield client
    finally:
        await client.close()


async def leave_data(stack: Stack, mark: str) -> None:
    async with database(stack) as connection:
        await connection.execute("create table if not exists public.marks (mark text)")
        await connection.execute("insert into public.marks values ($1)", mark)
    async with bus(stack) as client:
        await client.jetstream().publish("event.mark", mark.encode())
    async with object_store(stack.settings, "infra") as store:
        await store.put(f"marks/{mark}", mark.encode())


async def find_data(stack: Stack, mark: str) -> bool:
    async with database(stack) as connection:
        in_postgres = await connection.fetchval("select exists (select from public.marks where mark = $1)", mark)
    async with bus(stack) as client:
        in_nats = (await client.jetstream().get_last_msg("OUTSIDE", "event.mark")).data == mark.encode()
    async with object_store(stack.settings, "infra") as store:
        in_bucket = await store.get(f"marks/{mark}") == mark.encode()
    return in_postgres and in_nats and in_bucket


@contextmanager
def parent(directory: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that runs the stack, and all that runs below it."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            servers = json.loads(process.stdout.readline())
            below = psutil.Process(process.pid).children(recursive=True)
            assert {server.pid for server in below} >= set(servers.values())
            yield process, below
        finally:
            process.kill()


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_a_second_start_finds_all_data_and_the_same_addresses(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    async with embedded(tmp_path, gateway_port=0) as first:
        await leave_data(first, mark)

    async with embedded(tmp_path, gateway_port=0) as second:
        assert await find_data(second, mark)
        assert second.settings == first.settings


async def test_two_instances_run_beside_each_other(stack: Stack, tmp_path: Path) -> None:
    async with embedded(tmp_path, gateway_port=0) as other:
        await leave_data(other, "other")
        await leave_data(stack, "this")

        assert await find_data(other, "other")
        assert await find_data(stack, "this")
        assert not set(stack.pids.values()) & set(other.pids.values())


async def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    async with embedded(tmp_path, gateway_port=0, servers=["nats"]) as first:
        port = int(first.settings.nats_urls[0].rpartition(":")[2])

    squatter = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with squatter, embedded(tmp_path, gateway_port=0, servers=["nats"]) as second:
        assert second.settings.nats_urls != first.settings.nats_urls
        async with bus(second) as client:
            await client.jetstream().publish("event.mark", b"")


@pytest.mark.parametrize("name", ["postgres", "nats", "seaweedfs"])
async def test_a_server_that_is_killed_comes_back_with_its_data(mortal: Stack, name: str) -> None:
    mark = uuid.uuid4().hex
    await leave_data(mortal, mark)
    pid = mortal.pids[name]

    await mortal.kill(name)
    await mortal.until_ready(name)

    assert mortal.pids[name] != pid
    assert await find_data(mortal, mark)
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

    await asyncio.wait_for(mortal.until_ready("postgres"), 30)


async def test_streams_in_memory_are_there_again_after_nats_died(mortal: Stack) -> None:
    await mortal.kill("nats")
    await mortal.until_ready("nats")

    async with bus(mortal) as client:
        await client.jetstream().publish("log.run.1", b"a line")


async def test_a_server_that_keeps_dying_stops_the_platform_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def keep_killing() -> None:
        async with embedded(tmp_path, gateway_port=0, servers=["nats"]) as stack:
            while True:
                await stack.until_ready("nats")
                await stack.kill("nats")

    with pytest.raises(Unavailable, match=r"nats died 5 times within a minute[\s\S]*Server is ready"):
        await keep_killing()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    async with embedded(tmp_path, servers=["nats"]):
        pass
    shutil.rmtree(tmp_path / "nats" / "jetstream")
    (tmp_path / "nats" / "jetstream").write_text("in the way")

    with pytest.raises(Unavailable, match=r"nats did not start[\s\S]*not a directory"):
        async with embedded(tmp_path, servers=["nats"]):
            pytest.fail("it started")


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing here"):
        async with embedded(tmp_path, servers=["nats"]):
            raise NotFound("nothing here")


async def test_nothing_is_left_when_the_block_ends(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    async with embedded(tmp_path, gateway_port=0):
        running = list(set(psutil.Process().children(recursive=True)) - before)

    assert len(running) > 3
    assert are_gone(running)


async def test_no_server_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    with parent(tmp_path) as (process, servers):
        process.kill()
        process.wait()

        await eventually(lambda: are_gone(servers), within=15)


async def test_after_the_parent_is_killed_the_next_start_works_at_once(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    async with embedded(tmp_path, gateway_port=0) as first:
        await leave_data(first, mark)
    with parent(tmp_path) as (process, servers):
        process.kill()
        process.wait()

        async with embedded(tmp_path, gateway_port=0) as second:
            assert are_gone(servers)
            assert await find_data(second, mark)


async def test_servers_that_lost_their_guardian_too_are_ended_by_the_next_start(tmp_path: Path) -> None:
    with parent(tmp_path) as (process, servers):
        for guardian in servers:
            if guardian.name() == "sh":
                guardian.kill()
        process.kill()
        process.wait()

        async with embedded(tmp_path, gateway_port=0):
            assert are_gone(servers)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
async def test_a_parent_that_is_interrupted_stops_everything(tmp_path: Path, asked: signal.Signals) -> None:
    with parent(tmp_path) as (process, servers):
        process.send_signal(asked)

        await eventually(lambda: process.poll() is not None and are_gone(servers), within=30)


async def test_one_directory_is_for_one_stack(stack: Stack) -> None:
    with pytest.raises(Conflict, match=rf"{stack.directory} is in use by process {os.getpid()}"):
        async with embedded(stack.directory):
            pytest.fail("it started")


async def test_a_lock_whose_holder_is_gone_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(str(os.getppid()))

    async with embedded(tmp_path, servers=["nats"]) as stack:
        assert stack.pids


async def test_a_database_cluster_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.initialising"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    async with embedded(tmp_path, servers=["postgres"]) as stack, database(stack) as connection:
        assert await connection.fetchval("show data_directory") == str(tmp_path / "postgres")
        assert not half.exists()


async def test_secrets_are_for_their_owner_only(stack: Stack) -> None:
    for path in ["credentials.json", "nats/nats-server.conf", "seaweedfs/s3.json", "seaweedfs/security.toml"]:
        assert stat.S_IMODE((stack.directory / path).stat().st_mode) == 0o600


async def test_servers_listen_on_loopback_only(stack: Stack) -> None:
    addresses = {
        listening.laddr.ip
        for pid in stack.pids.values()
        for listening in psutil.Process(pid).net_connections("inet")
        if listening.status == psutil.CONN_LISTEN
    }

    assert addresses == {"127.0.0.1"}


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
        jetstream = client.jetstream(timeout=1)
        assert (await jetstream.publish("event.order.paid", b"{}")).stream == "OUTSIDE"
        assert (await jetstream.publish("run.requested", b"{}")).stream == "EVENTS"
        with pytest.raises(TimeoutError):
            await jetstream.publish("run.finished", b"{}")


async def test_a_subscriber_reads_events_and_publishes_none(stack: Stack) -> None:
    mark = uuid.uuid4().hex.encode()
    async with bus(stack) as client:
        await client.jetstream().publish("table.changed", mark)

    async with bus(stack, "subscriber") as client:
        jetstream = client.jetstream(timeout=1)
        subscription = await jetstream.pull_subscribe("table.changed", stream="EVENTS")
        messages = await subscription.fetch(100, timeout=2)
        await messages[-1].ack_sync()
        assert messages[-1].data == mark
        with pytest.raises(TimeoutError):
            await jetstream.publish("table.changed", b"{}")
        with pytest.raises(TimeoutError):
            await jetstream.delete_stream("EVENTS")
