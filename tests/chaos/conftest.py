"""One platform for all that is killed: it starts only once."""

from collections.abc import AsyncIterator

import pytest

from tests.dying import Platform, platform_on
from tests.stacks import StackIn


@pytest.fixture(scope="package")
async def platform(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """All services as processes of their own, on a stack of their own."""
    async with (
        stack_in(tmp_path_factory.mktemp("chaos")) as stack,
        platform_on(stack, tmp_path_factory.mktemp("logs")) as platform,
    ):
        yield platform


@pytest.fixture(scope="session")
def absence(request: pytest.FixtureRequest) -> float:
    """Seconds that a server is away for: longer than any lease of the platform above."""
    return float(request.config.getoption("--absence"))
