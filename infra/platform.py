"""The whole platform in one process: the embedded servers and all services."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from infra.connection import FILE_NAME, Connection, announced, connection_to
from infra.embedded.stack import embedded
from infra.services import SERVICES, serving
from shared.errors import Unavailable

_READY_SECONDS: Final = 60.0


@asynccontextmanager
async def platform(data: Path, *, port: int) -> AsyncIterator[Connection]:
    """Run the platform with its data in this directory until the block is left; it is ready when the block begins.

    A port of 0 becomes a free one. Meanwhile `connection.json` in the directory tells others where it is.
    """
    async with embedded(data, gateway_port=port) as stack:
        # Left behind by one that was killed.
        (stack.directory / FILE_NAME).unlink(missing_ok=True)
        async with serving(SERVICES, stack.settings) as running:
            connection = connection_to(running["gateway"], stack.settings)
            await _until_ready(connection.url)
            with announced(connection, stack.directory):
                yield connection


async def _until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        while True:
            answer = await client.get("/health/ready")
            if answer.is_success:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"the platform is not ready after {_READY_SECONDS:g} s: {answer.text}")
            await asyncio.sleep(0.05)
