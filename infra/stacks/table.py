"""The table of stacks: what the platform can run on, on this machine, by name."""

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

from infra.stacks.distributed import distributed
from infra.stacks.embedded import embedded
from infra.stacks.stack import PARTS, Stack
from shared.errors import Invalid


class StartStack(Protocol):
    """Runs the servers of a stack with their data in a directory, until the block is left.

    A `gateway_port` of 0 becomes a free one. `servers` can name fewer, or the parts that they play, for tests.
    """

    def __call__(
        self, data: Path, *, gateway_port: int = 8080, servers: Collection[str] = PARTS
    ) -> AbstractAsyncContextManager[Stack]:
        """The running stack."""


STACKS: Final[Mapping[str, StartStack]] = {"embedded": embedded, "distributed": distributed}


def started(kind: str, data: Path, *, gateway_port: int) -> AbstractAsyncContextManager[Stack]:
    """All servers of a kind of stack, running for as long as the block; `Invalid` for a kind that there is not."""
    if kind not in STACKS:
        raise Invalid(f"no stack is called {kind!r}; there are {' and '.join(STACKS)}")
    return STACKS[kind](data, gateway_port=gateway_port)
