"""Servers and a gateway that stand apart are prepared, and opened, by commands."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from infra.preparing import prepare
from infra.servers.nats import configuration
from infra.servers.ports import reserved_ports
from infra.servers.programs import program
from infra.stacks.stack import Stack
from services.gateway.tokens import Scope, tokens
from shared.errors import Invalid, Unavailable
from shared.settings import Settings
from tests.outside import nats_client
from tests.processes import RAT
from tests.waiting import eventually


def name() -> str:
    return f"somebody-{uuid4().hex[:8]}"


async def rat(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **stack.settings.environment()}
    return await asyncio.to_thread(
        subprocess.run, [RAT, *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@asynccontextmanager
async def nats_alone(settings: Settings, folder: Path) -> AsyncIterator[Settings]:
    """A NATS server that no stack looks after."""
    path = folder / "nats.conf"
    with reserved_ports(folder, ["nats"]) as ports, (folder / "nats.log").open("wb") as log:
        config = configuration("alone", folder, settings, host="127.0.0.1", port=ports["nats"])
        path.write_text(json.dumps(config))
        server = await asyncio.create_subprocess_exec(program("nats-server"), "--config", path, stderr=log)
        try:
            yield settings.model_copy(update={"nats_urls": [f"nats://127.0.0.1:{ports['nats']}"], "nats_replicas": 1})
        finally:
            server.terminate()
            await server.wait()


@asynccontextmanager
async def keeping(settings: Settings, part: str) -> AsyncIterator[None]:
    """`rat setup --keep`, which ends when it is told to."""
    process = await asyncio.create_subprocess_exec(
        *(RAT, "setup", part, "--keep"), env={**os.environ, **settings.environment()}, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_servers_are_prepared_any_number_of_times(stack: Stack) -> None:
    for _ in range(2):
        ran = await rat(stack, "setup", "postgres", "nats", "s3")

        assert ran.returncode == 0, ran.stderr


async def test_streams_that_somebody_deletes_are_made_again(stack: Stack, tmp_path: Path) -> None:
    async with nats_alone(stack.settings, tmp_path) as settings, keeping(settings, "nats"):
        client = await nats_client(settings)
        await eventually(lambda: client.jetstream().stream_info("DEAD"))

        for stream in ("BUCKET", "LOGS"):
            await client.jetstream().delete_stream(stream)

        for stream in ("BUCKET", "LOGS"):
            await eventually(partial(client.jetstream().stream_info, stream))
        await client.close()


async def test_servers_that_are_not_there_are_waited_for_and_then_named(stack: Stack) -> None:
    nowhere = stack.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})

    with pytest.raises(Unavailable, match="s3 is not there"):
        await prepare(["s3"], nowhere, wait_seconds=0)


async def test_what_cannot_be_prepared_is_named(stack: Stack) -> None:
    with pytest.raises(Invalid, match=r"nothing is called 'mysql'; there are postgres, nats"):
        await prepare(["mysql"], stack.settings, wait_seconds=0)


async def test_a_token_is_shown_once_and_accepted_until_it_is_revoked(stack: Stack) -> None:
    whose = name()

    made = await rat(stack, "token", "create", whose, "--scope", "write")

    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    async with tokens(stack.settings) as known:
        assert await known.find(token) == (whose, Scope.WRITE)
        again = await rat(stack, "token", "create", whose, "--scope", "write")
        assert again.returncode == 1
        assert f"there is a token {whose!r} already" in again.stderr
        assert (await rat(stack, "token", "revoke", whose)).returncode == 0
        assert await known.find(token) is None


async def test_a_token_goes_to_a_file_that_only_its_owner_can_read(stack: Stack, tmp_path: Path) -> None:
    file, whose = tmp_path / "token", name()

    ran = await rat(stack, "token", "create", whose, "--scope", "read", "--file", str(file))

    assert ran.returncode == 0, ran.stderr
    token = file.read_text().strip()
    assert token not in ran.stdout
    assert file.stat().st_mode & 0o077 == 0
    async with tokens(stack.settings) as known:
        assert await known.find(token) == (whose, Scope.READ)


async def test_the_first_token_is_made_but_once(stack: Stack, tmp_path: Path) -> None:
    await rat(stack, "token", "create", name(), "--scope", "read")
    file = tmp_path / "token"

    ran = await rat(stack, "token", "create", name(), "--scope", "admin", "--unless-any", "--file", str(file))

    assert ran.returncode == 0, ran.stderr
    assert not file.exists()


async def test_a_scope_that_there_is_not_is_refused(stack: Stack) -> None:
    ran = await rat(stack, "token", "create", name(), "--scope", "root")

    assert ran.returncode == 2
    assert "read, write, admin" in ran.stderr


async def test_a_service_says_that_it_is_alive_for_as_long_as_it_is(stack: Stack, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    environment = {**os.environ, **stack.settings.environment(), "RAT_ALIVE_FILE": str(alive)}
    process = await asyncio.create_subprocess_exec(
        RAT, "serve", "scheduler", env=environment, stderr=subprocess.DEVNULL
    )
    try:
        await eventually(alive.exists)
        os.utime(alive, (0, 0))
        await eventually(lambda: time.time() - alive.stat().st_mtime < 30)
    finally:
        process.terminate()
        assert await process.wait() == 0
