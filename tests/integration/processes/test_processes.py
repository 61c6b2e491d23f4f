"""Servers that are processes of ours live and die with the one that started them, and leave nothing behind."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from infra.stacks.stack import Stack
from shared.errors import Conflict, NotFound, Unavailable
from tests.lives import has_ended
from tests.marks import bus, database, find_data, leave_data
from tests.stacks import StackIn
from tests.waiting import eventually

PARENT = """
import asyncio, json, sys
from pathlib import Path
from infra.stacks.table import STACKS

async def main():
    async with STACKS[sys.argv[1]](Path(sys.argv[2]), gateway_port=0) as stack:
        print(json.dumps(stack.pids), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def parent(directory: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A process that runs the stack, and all that runs below it."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, kind, str(directory)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            servers = json.loads(process.stdout.readline())
            below = psutil.Process(process.pid).children(recursive=True)
            assert {server.pid for server in below} >= set(servers.values())
            yield process, below
        finally:
            process.kill()


def are_gone(processes: list[psutil.Process]) -> bool:
    return all(has_ended(process) for process in processes)


async def test_nothing_is_left_when_the_block_ends(stack_in: StackIn, tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    async with stack_in(tmp_path):
        running = list(set(psutil.Process().children(recursive=True)) - before)

    assert len(running) > 3
    assert are_gone(running)


async def test_no_server_outlives_a_parent_that_is_killed(kind: str, tmp_path: Path) -> None:
    with parent(tmp_path, kind) as (process, servers):
        process.kill()
        process.wait()

        await eventually(lambda: are_gone(servers))


async def test_after_the_parent_is_killed_the_next_start_works_at_once(
    kind: str, stack_in: StackIn, tmp_path: Path
) -> None:
    mark = uuid.uuid4().hex
    async with stack_in(tmp_path) as first:
        await leave_data(first, mark)
    with parent(tmp_path, kind) as (process, servers):
        process.kill()
        process.wait()

        async with stack_in(tmp_path) as second:
            assert are_gone(servers)
            assert await eventually(partial(find_data, second, mark))


async def test_servers_that_lost_their_guardian_too_are_ended_by_the_next_start(
    kind: str, stack_in: StackIn, tmp_path: Path
) -> None:
    with parent(tmp_path, kind) as (process, servers):
        for server in servers:
            # Some of them only asked on the way up whether a server answers.
            with suppress(psutil.NoSuchProcess):
                if server.name() == "sh":
                    server.kill()
        process.kill()
        process.wait()

        async with stack_in(tmp_path):
            assert are_gone(servers)


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
async def test_a_parent_that_is_interrupted_stops_everything(kind: str, tmp_path: Path, asked: signal.Signals) -> None:
    with parent(tmp_path, kind) as (process, servers):
        process.send_signal(asked)

        await eventually(lambda: process.poll() is not None and are_gone(servers))


async def test_a_port_that_was_taken_meanwhile_is_replaced(stack_in: StackIn, tmp_path: Path) -> None:
    async with stack_in(tmp_path, ["nats"]) as first:
        port = int(first.settings.nats_urls[0].rpartition(":")[2])

    squatter = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with squatter, stack_in(tmp_path, ["nats"]) as second:
        assert second.settings.nats_urls != first.settings.nats_urls
        async with bus(second) as client:
            await client.jetstream().publish("event.mark", b"")


async def test_a_server_that_keeps_dying_stops_the_platform_with_the_end_of_its_log(
    stack_in: StackIn, tmp_path: Path
) -> None:
    async def keep_killing() -> None:
        async with stack_in(tmp_path, ["nats"]) as stack:
            [name, *_] = stack.playing("nats")
            while True:
                await stack.until_ready(name)
                await stack.kill(name)

    with pytest.raises(Unavailable, match=r"nats(-\d)? died 5 times within a minute; the end of [\s\S]*\[INF\]"):
        await keep_killing()


async def test_a_server_that_cannot_start_says_why(stack_in: StackIn, tmp_path: Path) -> None:
    async with stack_in(tmp_path, ["nats"]) as stack:
        [name, *_] = stack.playing("nats")
    shutil.rmtree(tmp_path / name / "jetstream")
    (tmp_path / name / "jetstream").write_text("in the way")

    with pytest.raises(Unavailable, match=rf"{name} did not start[\s\S]*not a directory"):
        async with stack_in(tmp_path, ["nats"]):
            pytest.fail("it started")


async def test_what_the_block_raises_comes_out_as_it_is(stack_in: StackIn, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing here"):
        async with stack_in(tmp_path, ["nats"]):
            raise NotFound("nothing here")


async def test_one_directory_is_for_one_stack(stack_in: StackIn, stack: Stack) -> None:
    with pytest.raises(Conflict, match=rf"{stack.directory} is in use by process {os.getpid()}"):
        async with stack_in(stack.directory):
            pytest.fail("it started")


async def test_a_lock_whose_holder_is_gone_is_taken_over(stack_in: StackIn, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(str(os.getppid()))

    async with stack_in(tmp_path, ["nats"]) as stack:
        assert stack.pids


async def test_a_database_cluster_that_was_half_made_is_made_anew(stack_in: StackIn, tmp_path: Path) -> None:
    half = tmp_path / "postgres.initialising"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    async with stack_in(tmp_path, ["postgres"]) as stack, database(stack) as connection:
        assert await connection.fetchval("show data_directory") == str(tmp_path / "postgres")
        assert not half.exists()


def content(path: Path) -> bytes:
    """What is in a file; nothing if the server has removed it since it was listed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


async def test_secrets_are_for_their_owner_only(stack: Stack) -> None:
    secret = stack.settings.nats_password("infra").encode()
    files = [path for path in stack.directory.glob("*/*") if path.is_file()] + list(stack.directory.glob("*.json"))
    having = [path for path in files if secret in content(path)]

    assert {path.name for path in having} >= {"credentials.json", "nats-server.conf"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in having} == {0o600}


async def test_servers_listen_on_loopback_only(stack: Stack) -> None:
    addresses = {
        listening.laddr.ip.removeprefix("::ffff:")
        for pid in stack.pids.values()
        for listening in psutil.Process(pid).net_connections("inet")
        if listening.status == psutil.CONN_LISTEN
    }

    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}
