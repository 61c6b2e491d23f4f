"""Which stack is tested, as `pytest --stack` says; every test that needs servers of its own gets them here."""

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from infra.stacks import table
from infra.stacks.stack import PARTS, Stack
from tests.containers import containers

STACKS: Final = {**table.STACKS, "containers": containers}
"""Name → what starts a stack of that kind."""

_SPREAD: Final = ("nats-2", "postgres", "object_store", "lakehouse", "nats")
"""The second of three nodes first, and all three last: five deaths of one within a minute would end a stack."""

VICTIMS: Final = {
    "embedded": ("postgres", "nats", "object_store"),
    "distributed": _SPREAD,
    "containers": _SPREAD,
}
"""Which servers, or which parts that servers play, are killed and taken away in tests."""

FOLDERS: Final = {
    "embedded": {"embedded"},
    "distributed": {"distributed", "containers"},
    "processes": {"embedded", "distributed"},
}
"""Folders of tests that are about some stacks only, and which. All others are about each of them."""


class StackIn(Protocol):
    """Starts the stack that is tested, with its data in a directory, until the block is left."""

    def __call__(self, data: Path, servers: Collection[str] = PARTS) -> AbstractAsyncContextManager[Stack]: ...


def stack_in(kind: str) -> StackIn:
    """How the stack of this kind is started."""
    start = STACKS[kind]

    @asynccontextmanager
    async def started(data: Path, servers: Collection[str] = PARTS) -> AsyncIterator[Stack]:
        async with start(data, gateway_port=0, servers=servers) as stack:
            yield stack

    return started
