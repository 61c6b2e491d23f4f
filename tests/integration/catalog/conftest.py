"""What tests of the code half of catalog share."""

from collections.abc import AsyncIterator

import pytest

from infra.stacks.stack import Stack
from tests.cataloguing import World, world_of


@pytest.fixture(scope="module")
async def world(stack: Stack) -> AsyncIterator[World]:
    """Catalog runs; this is everybody who speaks with it."""
    async with world_of(stack.settings) as world:
        yield world
