"""Gaps between two runs of a table, for maintenance that changes it: no run finds then that main has moved under it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from contracts.names import Qualified
from shared.background import happens

_LONGEST_SECONDS: Final = 1.0
"""How long the end of a run waits at the most; maintenance takes some 20 ms."""


@dataclass
class Gap:
    """A gap that is waited for."""

    run_id: UUID | None = None
    """The run that leaves it, once it has begun."""
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class Gaps:
    """Gaps that are waited for, by table; runs of this runner leave them behind."""

    def __init__(self) -> None:
        self._wanted: dict[Qualified, Gap] = {}

    @contextmanager
    def wanted(self, table: Qualified) -> Iterator[Gap]:
        """Ask for a gap behind the next run of a table; it ends with the block."""
        gap = self._wanted[table] = Gap()
        try:
            yield gap
        finally:
            del self._wanted[table]
            gap.is_over.set()

    async def leave(self, table: Qualified, run_id: UUID) -> None:
        """Let maintenance that waits for it go on behind a run that has merged and is not said to have ended.

        The next run of its pipeline, which is the only one that writes the table, is not queued until then.
        """
        gap = self._wanted.get(table)
        if gap is not None:
            gap.run_id = run_id
            gap.has_begun.set()
            await happens(gap.is_over, within_seconds=_LONGEST_SECONDS)
