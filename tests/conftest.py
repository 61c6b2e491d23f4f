"""What tests share: one embedded stack for all that need servers."""

from collections.abc import AsyncIterator

import pytest

from infra.stacks.embedded import embedded
from infra.stacks.stack import Stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """PostgreSQL, NATS and SeaweedFS, ready for the services and empty."""
    async with embedded(tmp_path_factory.mktemp("stack"), gateway_port=0) as stack:
        yield stack
