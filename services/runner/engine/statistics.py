"""What Iceberg keeps of a Parquet file that DuckDB has just written, from what DuckDB says of it.

Reading it from the file's footer would give the same, for two requests more and another 50 MB of libraries in memory.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyiceberg.utils.truncate import truncate_upper_bound_binary_string, truncate_upper_bound_text_string

BOUND_LENGTH: Final = 16
"""Characters, or bytes, that are kept of a bound: Iceberg's default, `truncate(16)`."""

_PART: Final = re.compile(r'"((?:[^"]|"")*)"\.?')


@dataclass(frozen=True)
class ParquetFile:
    """A file that DuckDB has written, and what it says of its columns (`RETURN_STATS`)."""

    location: str
    rows: int
    bytes: int
    columns: Mapping[str, Mapping[str, str]]
    """Path of a column, each part between double quotes → names and values of its statistics."""


@dataclass(frozen=True)
class _Place:
    """Where a path leads: the column, and whether there may be several values of it in a row."""

    field: NestedField
    is_repeated: bool


def data_file(file: ParquetFile, schema: Schema, partition: Record = Record()) -> DataFile:
    """The entry of a file in a manifest."""
    sizes: dict[int, int] = {}
    values: dict[int, int] = {}
    nulls: dict[int, int] = {}
    lower: dict[int, bytes] = {}
    upper: dict[int, bytes] = {}
    for path, statistics in file.columns.items():
        place = _place(path, schema)
        number = place.field.field_id
        sizes[number] = int(statistics["column_size_bytes"])
        values[number] = int(statistics["num_values"])
        nulls[number] = int(statistics["null_count"])
        low, high = (None, None) if place.is_repeated else bounds(place.field.field_type, statistics)
        if low is not None:
            lower[number] = low
        if high is not None:
            upper[number] = high
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=file.location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        record_count=file.rows,
        file_size_in_bytes=file.bytes,
        column_sizes=sizes,
        value_counts=values,
        null_value_counts=nulls,
        nan_value_counts={},
        lower_bounds=lower,
        upper_bounds=upper,
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )


def bounds(kind: IcebergType, statistics: Mapping[str, str]) -> tuple[bytes | None, bytes | None]:
    """The least and the greatest value as Iceberg writes them; None where that is not known.

    A missing bound costs a reader time; a wrong one would cost it rows. So numbers that may be NaN have none: DuckDB
    leaves row groups with a NaN out of least and greatest, and tells of a NaN in the last row group only.
    """
    if isinstance(kind, FloatType | DoubleType) or "min" not in statistics or "max" not in statistics:
        return None, None
    try:
        least, greatest = _value(kind, statistics["min"]), _value(kind, statistics["max"])
    except (ValueError, InvalidOperation):
        # A date before the year 1 or after 9999, or infinity.
        return None, None
    match kind:
        case StringType():
            return _bytes(kind, least[:BOUND_LENGTH]), _bytes(
                kind, truncate_upper_bound_text_string(greatest, BOUND_LENGTH)
            )
        case BinaryType():
            return least[:BOUND_LENGTH], truncate_upper_bound_binary_string(greatest, BOUND_LENGTH)
        case _:
            return _bytes(kind, least), _bytes(kind, greatest)


def _bytes(kind: IcebergType, value: Any) -> bytes | None:
    assert isinstance(kind, PrimitiveType), "only primitive columns have bounds"
    return None if value is None else to_bytes(kind, value)


def _value(kind: IcebergType, text: str) -> Any:
    """A value as DuckDB writes it in its statistics."""
    match kind:
        case BooleanType():
            return bool(int(text))
        case IntegerType() | LongType():
            return int(text)
        case DecimalType():
            return Decimal(text)
        case StringType():
            return text
        case UUIDType():
            return UUID(text)
        case BinaryType():
            return bytes.fromhex(text)
        case DateType():
            return date.fromisoformat(text)
        case TimeType():
            return time.fromisoformat(text)
        case TimestampType() | TimestamptzType():
            return datetime.fromisoformat(text)
        case _:
            raise ValueError(f"no bounds for {kind}")


def _place(path: str, schema: Schema) -> _Place:
    first, *others = [part.replace('""', '"') for part in _PART.findall(path)]
    place = _Place(_named(schema.as_struct(), first), is_repeated=False)
    for part in others:
        place = _inside(place, part)
    return place


def _inside(place: _Place, part: str) -> _Place:
    match place.field.field_type:
        case ListType() as kind:
            return _Place(kind.element_field, is_repeated=True)
        case MapType() as kind:
            return _Place(kind.key_field if part == "key" else kind.value_field, is_repeated=True)
        case StructType() as kind:
            return _Place(_named(kind, part), place.is_repeated)
        case kind:
            raise ValueError(f"{kind} has nothing inside that is called {part!r}")


def _named(struct: StructType, name: str) -> NestedField:
    return next(field for field in struct.fields if field.name == name)
