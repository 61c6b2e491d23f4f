"""What tests share: one stack, of the kind that was asked for, for all that need servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.stacks.stack import Stack
from infra.stacks.table import STACKS as COMMANDED
from tests.stacks import FOLDERS, STACKS, VICTIMS, StackIn
from tests.stacks import stack_in as starting


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--stack` chooses the servers that the tests run on."""
    parser.addoption("--stack", choices=sorted(STACKS), default="embedded", help="The servers that the tests run on.")
    parser.addoption(
        "--examples", type=int, default=25, help="How many histories of a table the model is held against."
    )
    parser.addoption(
        "--absence", type=float, default=12.0, help="Seconds that a server is away for in the chaos tests."
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out folders of tests that are not about the stack that is tested."""
    return True if config.getoption("--stack") not in FOLDERS.get(collection_path.name, STACKS) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `victim` for each of the servers that may die."""
    if "victim" in metafunc.fixturenames:
        metafunc.parametrize("victim", VICTIMS[metafunc.config.getoption("--stack")])


def pytest_report_header(config: pytest.Config) -> str:
    """Say what the tests run on."""
    return f"stack: {config.getoption('--stack')}"


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """The name of the stack that is tested, for tests of commands that start one; none starts containers."""
    kind = str(request.config.getoption("--stack"))
    if kind not in COMMANDED:
        pytest.skip(f"no command starts {kind}")
    return kind


@pytest.fixture(scope="session")
def stack_in(request: pytest.FixtureRequest) -> StackIn:
    """Starts a stack of the kind that is tested, for tests that do to it what others must not see."""
    return starting(str(request.config.getoption("--stack")))


@pytest.fixture(scope="session")
async def stack(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All servers, ready for the services and empty."""
    async with stack_in(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
