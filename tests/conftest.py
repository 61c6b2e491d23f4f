"""What tests share: one stack, of the kind that was asked for, for all that need servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.stacks.stack import Stack
from tests.stacks import STACKS, StackIn
from tests.stacks import stack_in as starting


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--stack` chooses the servers that the tests run on."""
    parser.addoption("--stack", choices=sorted(STACKS), default="embedded", help="The servers that the tests run on.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders that are called like another stack: they hold the tests of that stack alone."""
    of_a_stack = collection_path.is_dir() and collection_path.name in STACKS
    return True if of_a_stack and collection_path.name != config.getoption("--stack") else None


def pytest_report_header(config: pytest.Config) -> str:
    """Say what the tests run on."""
    return f"stack: {config.getoption('--stack')}"


@pytest.fixture(scope="session")
def stack_in(request: pytest.FixtureRequest) -> StackIn:
    """Starts a stack of the kind that is tested, for tests that do to it what others must not see."""
    return starting(request.config.getoption("--stack"))


@pytest.fixture(scope="session")
async def stack(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All servers, ready for the services and empty."""
    async with stack_in(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
