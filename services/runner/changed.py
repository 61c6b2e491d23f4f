"""The tables that runs of this runner have put on main lately, for whoever looks after them."""

import asyncio

from contracts.names import Qualified
from shared.lakehouse.port import Merged


class ChangedTables:
    """Tables that were merged and not looked at since; each once, however often it changes."""

    def __init__(self) -> None:
        self._waiting: dict[Qualified, None] = {}
        self._has_come = asyncio.Event()

    def note(self, merged: Merged) -> None:
        """Take note of a merge."""
        for table, location in merged.tables.items():
            if location is not None:
                self._waiting[table] = None
                self._has_come.set()

    async def next(self) -> Qualified:
        """Wait for a table, the one that waits longest, and take it."""
        while not self._waiting:
            self._has_come.clear()
            await self._has_come.wait()
        table = next(iter(self._waiting))
        del self._waiting[table]
        return table
