"""Many small files of a table become few: which ones are worth it, and how they are written anew."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from contracts.names import Qualified
from services.runner.engine.batch import engine_errors
from services.runner.engine.parquet import Copy, rows_of
from services.runner.engine.partitions import column
from services.runner.engine.touched import must_have_ids
from shared.errors import Conflict
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.commit import rewrite
from shared.lakehouse.manifests import PresentFile

SMALL_BYTES: Final = 12_000_000
"""Larger files are left alone: what writes them keeps them apart, so that less is rewritten for a key."""
_FILE_BYTES: Final = 128_000_000
_MOST_BYTES: Final = 4_000_000_000
"""What one job reads at the most; the rest is for the next one."""
_TIER: Final = 4
"""Files of a tier have, within a factor of 2 to this power, as many rows."""


@dataclass(frozen=True)
class Rewritten:
    """Files that are to take the place of others, and the shape of the table that they were written for."""

    base: Table
    removed: Sequence[PresentFile]
    added: Sequence[DataFile]


def small_files(files: Sequence[PresentFile], spec_id: int, *, at_least: int) -> list[PresentFile]:
    """Those of a table's files that are worth being written anew.

    That is where a partition has at least so many of about the same number of rows: what comes of them has many times
    as many, so that a row is written anew only so many times as its table grows by that factor.
    """
    alike: dict[tuple[Record, int], list[PresentFile]] = defaultdict(list)
    for file in files:
        if file.spec_id == spec_id and file.size_bytes < SMALL_BYTES:
            alike[file.partition, file.rows.bit_length() // _TIER].append(file)
    worth = [file for group in alike.values() if len(group) >= at_least for file in group]
    taken, size = set(), 0
    for file in sorted(worth, key=lambda one: one.size_bytes):
        size += file.size_bytes
        if size > _MOST_BYTES:
            break
        taken.add(file.location)
    return [file for file in worth if file.location in taken]


def rewrite_small_files(
    connection: duckdb.DuckDBPyConnection, catalog: BranchCatalog, name: Qualified, *, at_least: int
) -> Rewritten | None:
    """Write the small files of a table anew, as few; nothing is committed. None where there are not enough of them.

    `Conflict` where another engine has deleted rows in files of the table, `WorkFailed` where it has added files whose
    columns have no ids.
    """
    try:
        table = catalog.load_table(tuple(name))
    except NoSuchTableError:
        return None
    commit = rewrite(catalog, name, table)
    removed = small_files(commit.files(), commit.spec.spec_id, at_least=at_least)
    if not removed:
        return None
    ids = [field.field_id for field in commit.schema.fields]
    columns = ", ".join(column(number) for number in ids)
    count = sum(file.rows for file in removed)
    rows = rows_of([file.location for file in removed], commit.schema, ids, count=count)
    with engine_errors():
        must_have_ids(connection, commit, removed)
        added = Copy(commit, connection, file_bytes=_FILE_BYTES).run(f"select {columns} from {rows}")
    if sum(file.record_count for file in added) != count:
        raise Conflict(f"table {str(name)!r} has other rows when it is read than its files say")
    return Rewritten(table, removed, added)


def commit_rewritten(catalog: BranchCatalog, name: Qualified, rewritten: Rewritten) -> bool:
    """Put the new files in the place of the old ones on a branch; False where the table has moved on from them."""
    try:
        table = catalog.load_table(tuple(name))
    except NoSuchTableError:
        return False
    if _shape(table) != _shape(rewritten.base):
        return False
    commit = rewrite(catalog, name, table)
    gone = {file.location for file in rewritten.removed}
    present = [file for file in commit.files() if file.location in gone]
    if len(present) < len(gone):
        return False
    commit.finish(rewritten.added, present)
    return True


def _shape(table: Table) -> tuple[str, int, int]:
    return table.location(), table.schema().schema_id, table.spec().spec_id
