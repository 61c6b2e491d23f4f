"""What a CSV file is like, found out once: DuckDB looks anew each time that a query of it is prepared.

A run prepares its query twice, to learn its columns and to write its rows, and looking is most of what a small file
costs. A version of a file never changes, so what was found is kept for the runs that follow.
"""

from collections import OrderedDict
from typing import Final

import duckdb

from contracts.landing import ClaimedFile
from services.runner.engine.statement import string

_KEPT: Final = 1000
_OPTIONS: Final = ", auto_detect=false"
"""What the options in a call begin with."""


class Sniffed:
    """Calls of `read_csv` that say about a file what DuckDB would find out by itself."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._kept: OrderedDict[tuple[str, str], str] = OrderedDict()

    def call(self, file: ClaimedFile, location: str) -> str | None:
        """The call that reads a file as `read_csv` does without options; None where that cannot be said.

        `location` is the file's address, as DuckDB's readers take it. If another version is there by now, its run
        notices after it has read, and begins anew.
        """
        version = (file.key, file.version_id)
        if version not in self._kept:
            found = self._found(location)
            if found is None:
                return None
            self._kept[version] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(version)
        return self._kept[version]

    def _found(self, location: str) -> str | None:
        try:
            row = self._connection.execute(
                f"select prompt, [one.name for one in columns] from sniff_csv({string(location)})"
            ).fetchone()
        except duckdb.Error:
            # The query runs into it as well, and tells its author.
            return None
        if row is None:
            return None
        prompt, names = row
        # DuckDB writes names into the call as they are, and the file says what they are.
        if any("'" in name for name in names) or _OPTIONS in location:
            return None
        # It names the file that it found, which a reader would take for a pattern.
        options = str(prompt).partition(_OPTIONS)[2].removesuffix(";")
        return f"read_csv({string(location)}{_OPTIONS}{options}"
