"""The whole platform in this process, on a stack of its own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from infra.services import SERVICES, serving
from infra.stacks.stack import Stack
from tests.client import Client, client
from tests.stacks import StackIn


@dataclass(frozen=True)
class Platform:
    """A running platform, and a user of it."""

    stack: Stack
    url: str
    user: Client


@pytest.fixture(scope="package")
async def platform(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """All services, ready to be used."""
    async with (
        stack_in(tmp_path_factory.mktemp("platform")) as stack,
        serving(SERVICES, stack.settings) as running,
        client(stack.settings, running["gateway"]) as user,
    ):
        yield Platform(stack, running["gateway"], user)


@pytest.fixture
def user(platform: Platform) -> Client:
    """Somebody who uses the platform."""
    return platform.user
