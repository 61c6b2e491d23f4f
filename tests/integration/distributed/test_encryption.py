"""What clients say to NATS in the distributed stack is encrypted."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import nats
import nats.errors
import pytest

from infra.stacks.stack import Stack
from tests.certificates import certificate
from tests.stacks import StackIn


@pytest.fixture(scope="module")
async def cluster(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("cluster"), ["nats"]) as cluster:
        yield cluster


async def test_a_client_without_the_authority_is_refused(cluster: Stack, tmp_path: Path) -> None:
    stranger = certificate(tmp_path).authority
    for context in (None, ssl.create_default_context(cafile=stranger)):
        with pytest.raises((ssl.SSLError, nats.errors.Error)):
            await nats.connect(
                cluster.settings.nats_urls,
                user="infra",
                password=cluster.settings.nats_password("infra"),
                tls=context,
                connect_timeout=20,
                allow_reconnect=False,
                max_reconnect_attempts=1,
            )


async def test_a_login_in_the_clear_is_refused(cluster: Stack) -> None:
    node = urlsplit(cluster.settings.nats_urls[0])
    reader, writer = await asyncio.open_connection(node.hostname, node.port)
    greeting = json.loads((await reader.readline()).removeprefix(b"INFO "))
    login = {"user": "infra", "pass": cluster.settings.nats_password("infra"), "verbose": False, "pedantic": False}
    writer.write(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), timeout=60)
    writer.close()

    assert greeting["tls_required"]
    assert b"PONG" not in answer
