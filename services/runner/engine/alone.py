"""A table whose rows are all in files that were just written, read from these: its metadata need not be read for it."""

from collections.abc import Sequence
from typing import Final

from pyiceberg.manifest import DataFile

from services.runner.engine.parquet import rows_of
from services.runner.engine.partitions import column
from services.runner.engine.statement import identifier
from shared.lakehouse.commit import Commit
from shared.lakehouse.manifests import PresentFile

_MOST: Final = 100
"""Files that a query names one by one."""


def rows_alone(commit: Commit, added: Sequence[DataFile], removed: Sequence[PresentFile]) -> str | None:
    """The table once these files have come and those are gone, as a relation; None where others hold rows of it.

    Tests that read it judge the same rows as through the table, without the five requests that it takes to find them.
    """
    if not 0 < len(added) <= _MOST or not _is_all(commit, removed):
        return None
    fields = commit.schema.fields
    columns = ", ".join(f"{column(field.field_id)} as {identifier(field.name)}" for field in fields)
    count = sum(file.record_count for file in added)
    rows = rows_of([file.file_path for file in added], commit.schema, [field.field_id for field in fields], count=count)
    return f"(select {columns} from {rows})"


def _is_all(commit: Commit, removed: Sequence[PresentFile]) -> bool:
    """Whether these are all files that the table has had."""
    return commit.base is None or (bool(removed) and len(removed) == len(commit.all_files()))
