"""Which files of a table hold rows of some keys: first by what is known of files, then by the rows themselves."""

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import duckdb
from pyiceberg.conversions import from_bytes
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    PrimitiveType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from services.runner.domain import FailureKind
from services.runner.engine.binding import escaped
from services.runner.engine.parquet import FILE, rows_of
from services.runner.engine.partitions import Partitioning, column
from services.runner.engine.schema import duckdb_type
from services.runner.engine.statement import string
from services.runner.problems import WorkFailed
from shared.errors import Conflict
from shared.lakehouse.commit import Commit
from shared.lakehouse.manifests import PresentFile

_FLOATS: Final = (FloatType, DoubleType)
_NAMES_OF_IDS: Final = "schema.name-mapping.default"
"""The property of a table that may have files without field ids (Iceberg's spec, Name Mapping Serialization)."""
_FEW_FILES: Final = 3
"""So many are read sooner than it is found out which of them lie between two keys that are there."""
_MOST_PARTITIONS: Final = 10_000
"""Values of a partition field beyond which keys are not told apart by it."""


@dataclass(frozen=True)
class Touched:
    """A file that holds rows of the keys, and how many."""

    file: PresentFile
    rows: int

    @property
    def is_whole(self) -> bool:
        """Whether all its rows are of the keys."""
        return self.rows == self.file.rows


def same(ids: Collection[int], one: str, other: str, *, filled: Collection[int] = ()) -> str:
    """The condition that two rows have the same values in these columns; null is a value like any other.

    `filled` are columns without nulls on the right of a join: of what is on the left, DuckDB then reads only where
    values lie between theirs.
    """
    return " and ".join(
        f"{one}.{column(number)} {'=' if number in filled else 'is not distinct from'} {other}.{column(number)}"
        for number in ids
    )


def live_files(commit: Commit) -> list[PresentFile]:
    """The data files of the table; `WorkFailed` where another engine keeps deletions of their rows beside them."""
    try:
        return commit.files()
    except Conflict as error:
        raise WorkFailed(FailureKind.SCHEMA, error.message) from error


def must_have_ids(connection: duckdb.DuckDBPyConnection, commit: Commit, files: Sequence[PresentFile]) -> None:
    """Raise `WorkFailed` where the columns of one of these files have no ids: all its values would be read as null."""
    if not files or _NAMES_OF_IDS not in commit.metadata.properties:
        return
    listed = ", ".join(string(escaped(file.location)) for file in files)
    found = connection.execute(
        f"select file_name from parquet_schema([{listed}]) group by file_name having count(field_id) = 0 limit 1"
    ).fetchone()
    if found is not None:
        raise WorkFailed(
            FailureKind.SCHEMA,
            f"table {str(commit.name)!r} has a file of another engine whose columns have no field ids, {found[0]}:"
            " have that engine write it anew, or replace all rows by one run with full_refresh",
        )


def touched_files(
    connection: duckdb.DuckDBPyConnection, commit: Commit, keys: str, ids: Sequence[int]
) -> list[Touched]:
    """The files of the table that hold rows of the keys: those that a relation `keys` has in the columns `ids`."""
    files = candidates(connection, commit, live_files(commit), keys, ids)
    if not files:
        return []
    must_have_ids(connection, commit, files)
    table = rows_of([file.location for file in files], commit.schema, ids)
    condition = same(ids, "t", "k", filled=_filled(connection, keys, ids))
    counts = dict(
        connection.execute(
            f"select {FILE}, count(*) from {table} t semi join {keys} k on {condition} group by all"
        ).fetchall()
    )
    return [Touched(file, counts[file.location]) for file in files if file.location in counts]


def _filled(connection: duckdb.DuckDBPyConnection, keys: str, ids: Sequence[int]) -> set[int]:
    """Those of the columns that have no nulls."""
    columns = ", ".join(f"count(*) = count({column(number)})" for number in ids)
    found = connection.execute(f"select {columns} from {keys}").fetchone()
    assert found is not None, "counts are one row"
    return {number for number, is_filled in zip(ids, found, strict=True) if is_filled}


def candidates(
    connection: duckdb.DuckDBPyConnection, commit: Commit, files: Sequence[PresentFile], keys: str, ids: Sequence[int]
) -> list[PresentFile]:
    """Those of the files that may hold rows of the keys, as far as manifests tell it."""
    kept = _by_partition(connection, commit, files, keys, ids)
    for number in ids:
        if len(kept) > 1:
            kept = _by_bounds(connection, kept, commit.schema, keys, number)
    return kept


# By partition


def _by_partition(
    connection: duckdb.DuckDBPyConnection, commit: Commit, files: Sequence[PresentFile], keys: str, ids: Collection[int]
) -> list[PresentFile]:
    kept = list(files)
    specs = commit.metadata.specs()
    for spec_id in {file.spec_id for file in files}:
        partitioning = Partitioning(specs[spec_id], commit.schema)
        partitioning.prepare(connection)
        for place, field in enumerate(partitioning.spec.fields):
            # NaN is not equal to what it is compared with.
            if field.source_id not in ids or isinstance(commit.schema.find_type(field.source_id), _FLOATS):
                continue
            values = connection.execute(
                f"select distinct {partitioning.expression(field)} from {keys} limit {_MOST_PARTITIONS + 1}"
            ).fetchall()
            if len(values) <= _MOST_PARTITIONS:
                wanted = {partitioning.value(field, text) for (text,) in values}
                kept = [file for file in kept if file.spec_id != spec_id or file.partition[place] in wanted]
    return kept


# By the bounds of their columns


def _by_bounds(
    connection: duckdb.DuckDBPyConnection, files: Sequence[PresentFile], schema: Schema, keys: str, number: int
) -> list[PresentFile]:
    """Those of the files that may hold a value that the keys have in one column."""
    known = dict(_known_bounds(files, number, schema.find_type(number)))
    if not known:
        return list(files)
    values = ", ".join(f"({place}, {low}, {high}, {has_null})" for place, (low, high, has_null) in known.items())
    kind, key = duckdb_type(schema.find_type(number)), column(number)
    bounds = f"""(
      select place, low::{kind} as low, high::{kind} as high, has_null
      from (values {values}) f(place, low, high, has_null)
    )"""
    found = connection.execute(_within_range(bounds, keys, key)).fetchall()
    if len(files) - len(known) + len(found) > _FEW_FILES:
        found = connection.execute(_holding_a_key(bounds, keys, key)).fetchall()
    places = {place for (place,) in found}
    return [file for place, file in enumerate(files) if place not in known or place in places]


def _within_range(bounds: str, keys: str, key: str) -> str:
    """A query of the files whose values and the keys overlap as a whole."""
    return f"""
        select place
        from {bounds} f
        join (select min({key}) as low, max({key}) as high, count(*) > count({key}) as has_null from {keys}) k
          on (f.low <= k.high and k.low <= f.high) or (f.has_null and k.has_null)
    """


def _holding_a_key(bounds: str, keys: str, key: str) -> str:
    """A query of the files that have a key between their least and greatest value.

    For each file it takes the least key that is not below it: where that is not above it, the file may hold it.
    """
    return f"""
        with keys as (select distinct {key} as key from {keys})
        select place
        from {bounds} f asof join (select key from keys where key is not null) k on f.low <= k.key
        where k.key <= f.high
        union
        select place
        from {bounds} f
        where has_null and exists (select 1 from keys where key is null)
    """


def _known_bounds(
    files: Sequence[PresentFile], number: int, kind: IcebergType
) -> Iterator[tuple[int, tuple[str, str, bool]]]:
    """For the files of which it is known: the least and the greatest value, as SQL, and whether there may be nulls."""
    for place, file in enumerate(files):
        nulls = (file.entry.data_file.null_value_counts or {}).get(number)
        low, high = (_literal(kind, bounds.get(number)) for bounds in (file.lower, file.upper))
        if low is not None and high is not None:
            yield place, (low, high, nulls != 0)
        elif nulls == file.rows:
            yield place, ("null", "null", True)


def _literal(kind: IcebergType, encoded: bytes | None) -> str | None:
    """A bound as SQL; None where there is none, or it cannot be compared by."""
    if encoded is None or not isinstance(kind, PrimitiveType) or isinstance(kind, _FLOATS):
        return None
    try:
        return _sql(kind, from_bytes(kind, encoded))
    except (ValueError, struct.error):
        # Bounds of a type that the column had once, in another width.
        return None


def _sql(kind: IcebergType, value: Any) -> str:
    match kind:
        case BooleanType():
            return str(value).lower()
        case StringType():
            return f"decode(unhex('{value.encode().hex()}'))"
        case UUIDType():
            return f"'{UUID(bytes=bytes(value))}'::uuid"
        case BinaryType():
            return f"unhex('{value.hex()}')"
        case DecimalType():
            return f"{value:f}"
        case DateType():
            return f"date '1970-01-01' + ({value})"
        case TimeType():
            return f"time '00:00:00' + to_microseconds({value})"
        case TimestampType():
            return f"make_timestamp({value})"
        case TimestamptzType():
            return f"make_timestamptz({value})"
        case _:
            return str(value)
