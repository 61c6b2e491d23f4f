"""What tests share: one stack of each kind for all that need servers."""

from collections.abc import AsyncIterator

import pytest

from infra.stacks.embedded import embedded
from infra.stacks.stack import Stack
from tests.nessie import stack_with_nessie


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """PostgreSQL, NATS and SeaweedFS, ready for the services and empty."""
    async with embedded(tmp_path_factory.mktemp("stack"), gateway_port=0) as stack:
        yield stack


@pytest.fixture(scope="session")
async def nessie_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack with Nessie, ready for the services and empty."""
    async with stack_with_nessie(tmp_path_factory.mktemp("nessie")) as stack:
        yield stack


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("stack", id="embedded"),
        pytest.param("nessie_stack", id="nessie", marks=pytest.mark.distributed),
    ],
)
def any_stack(request: pytest.FixtureRequest) -> Stack:
    """Each kind of stack in turn."""
    stack = request.getfixturevalue(request.param)
    assert isinstance(stack, Stack)
    return stack
