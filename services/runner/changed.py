"""The tables that runs of this runner have put on main lately, for whoever looks after them."""

import asyncio

from contracts.names import Qualified
from shared.lakehouse.port import Merged


class ChangedTables:
    """Tables that were merged and not looked at since; each once, however often it changes."""

    def __init__(self) -> None:
        self._waiting: dict[Qualified, int] = {}
        """With how many files were added to each."""
        self._has_come = asyncio.Event()

    def note(self, merged: Merged, files: int) -> None:
        """Take note of a merge, and of how many files came with it."""
        for table, location in merged.tables.items():
            if location is not None:
                self._waiting[table] = self._waiting.get(table, 0) + files
                self._has_come.set()

    async def next(self) -> tuple[Qualified, int]:
        """Wait for a table, the one that waits longest, and take it; says how many files were added to it meanwhile."""
        while not self._waiting:
            self._has_come.clear()
            await self._has_come.wait()
        table = next(iter(self._waiting))
        return table, self._waiting.pop(table)
