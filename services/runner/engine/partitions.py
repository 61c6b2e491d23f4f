"""How rows are split by a table's partition spec: DuckDB works the values out, as Iceberg defines them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import duckdb
import mmh3
import pyarrow as pa
from duckdb.func import ARROW
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
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
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyiceberg.utils.decimal import decimal_to_bytes, unscaled_to_decimal

_HASH_OF_NUMBER: Final = "__rat_hash_of_number"
_HASH_OF_BYTES: Final = "__rat_hash_of_bytes"
_HASH_OF_DECIMAL: Final = "__rat_hash_of_decimal"

_NULL: Final = "n"
_VALUE: Final = "v"
"""What the text of a partition value begins with: whether there is one."""


@dataclass(frozen=True)
class Partitioning:
    """The partition spec that rows are written under, or were written under, and the columns that it is about."""

    spec: PartitionSpec
    schema: Schema

    def expressions(self) -> list[str]:
        """For each field of the spec SQL that gives its value as a text, from columns by the names of `column`."""
        return [self.expression(field) for field in self.spec.fields]

    def expression(self, field: PartitionField) -> str:
        """The same for one field."""
        source = self.schema.find_type(field.source_id)
        text = _transformed(field, source, column(field.source_id))
        return f"coalesce('{_VALUE}' || ({text}), '{_NULL}')"

    def record(self, texts: Sequence[str]) -> Record:
        """The values of a file's partition, as manifests hold them, from those texts."""
        return Record(*(self.value(field, text) for field, text in zip(self.spec.fields, texts, strict=True)))

    def value(self, field: PartitionField, text: str) -> Any:
        """The value of one field from its text."""
        if text == _NULL:
            return None
        source = self.schema.find_type(field.source_id)
        return _parsed(field.transform.result_type(source), text.removeprefix(_VALUE))

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Teach DuckDB what the expressions need and it does not have: Iceberg's hash, murmur3."""
        if not any(isinstance(field.transform, BucketTransform) for field in self.spec.fields):
            return
        for name, (argument, hashes) in _HASHES.items():
            if not connection.execute("select 1 from duckdb_functions() where function_name = $1", [name]).fetchone():
                kind = connection.type(argument)
                connection.create_function(name, hashes, [kind], connection.type("INTEGER"), type=ARROW)


def column(number: int) -> str:
    """The name of a column in all SQL of ours, whatever its author calls it: by its id."""
    return f"c{number}"


# The transforms (Iceberg's spec, Partition Transforms), as SQL that gives a text


def _transformed(field: PartitionField, source: IcebergType, value: str) -> str:
    match field.transform:
        case IdentityTransform():
            return _text(source, value)
        case YearTransform():
            return f"(year({_local(source, value)}) - 1970)::varchar"
        case MonthTransform():
            local = _local(source, value)
            return f"((year({local}) - 1970) * 12 + month({local}) - 1)::varchar"
        case DayTransform():
            return f"date_diff('day', date '1970-01-01', {_local(source, value)}::date)::varchar"
        case HourTransform():
            return f"date_diff('hour', timestamp '1970-01-01', {_local(source, value)})::varchar"
        case BucketTransform() as transform:
            return f"({_hashed(source, value)} % {transform.num_buckets})::varchar"
        case TruncateTransform() as transform:
            return _truncated(source, value, transform.width)
        case VoidTransform():
            return "null"
        case other:
            raise ValueError(f"column {field.name!r} cannot be partitioned by {other}: it is not known here")


def _local(source: IcebergType, value: str) -> str:
    """Timestamps with a zone by the clock of UTC."""
    return f"({value} at time zone 'UTC')" if isinstance(source, TimestamptzType) else value


def _text(source: IcebergType, value: str) -> str:
    """A value as a text that loses nothing of it."""
    match source:
        case DateType():
            return f"date_diff('day', date '1970-01-01', {value})::varchar"
        case TimeType() | TimestampType() | TimestamptzType():
            return f"epoch_us({value})::varchar"
        case BinaryType():
            return f"hex({value})"
        case FloatType():
            return f"{value}::double::varchar"
        case DecimalType():
            return f"{_unscaled(value)}::varchar"
        case _:
            return f"{value}::varchar"


def _unscaled(value: str) -> str:
    """A decimal's digits without the point."""
    return f"replace({value}::varchar, '.', '')::hugeint"


def _truncated(source: IcebergType, value: str, width: int) -> str:
    match source:
        case StringType():
            return f"left({value}, {width})"
        case BinaryType():
            return f"left(hex({value}), {2 * width})"
        case DecimalType():
            return _floor(_unscaled(value), width)
        case _:
            return _floor(f"{value}::hugeint", width)


def _floor(number: str, width: int) -> str:
    return f"({number} - ((({number} % {width}) + {width}) % {width}))::varchar"


def _hashed(source: IcebergType, value: str) -> str:
    match source:
        case IntegerType() | LongType():
            return f"{_HASH_OF_NUMBER}({value}::bigint)"
        case DateType():
            return f"{_HASH_OF_NUMBER}(date_diff('day', date '1970-01-01', {value})::bigint)"
        case TimeType() | TimestampType() | TimestamptzType():
            return f"{_HASH_OF_NUMBER}(epoch_us({value}))"
        case DecimalType():
            return f"{_HASH_OF_DECIMAL}({value}::varchar)"
        case UUIDType():
            return f"{_HASH_OF_BYTES}(unhex(replace({value}::varchar, '-', '')))"
        case StringType():
            return f"{_HASH_OF_BYTES}(encode({value}))"
        case _:
            return f"{_HASH_OF_BYTES}({value})"


def _positive(number: int) -> int:
    return number & 0x7FFFFFFF


def _hash_of_numbers(numbers: pa.ChunkedArray) -> pa.Array:
    return _hashes(struct.pack("<q", number) for number in numbers.to_pylist())


def _hash_of_bytes(values: pa.ChunkedArray) -> pa.Array:
    return _hashes(values.to_pylist())


def _hash_of_decimals(texts: pa.ChunkedArray) -> pa.Array:
    return _hashes(decimal_to_bytes(Decimal(text)) for text in texts.to_pylist())


def _hashes(values: Any) -> pa.Array:
    return pa.array([_positive(mmh3.hash(value)) for value in values], pa.int32())


_HASHES: Final[Mapping[str, tuple[str, Any]]] = {
    _HASH_OF_NUMBER: ("BIGINT", _hash_of_numbers),
    _HASH_OF_BYTES: ("BLOB", _hash_of_bytes),
    _HASH_OF_DECIMAL: ("VARCHAR", _hash_of_decimals),
}
"""Function of DuckDB → the type of its argument, and what it does; a null never reaches it."""


# And back


def _parsed(kind: IcebergType, text: str) -> Any:
    match kind:
        case BooleanType():
            return text == "true"
        case FloatType() | DoubleType():
            return float(text)
        case DecimalType():
            return unscaled_to_decimal(int(text), kind.scale)
        case StringType():
            return text
        case UUIDType():
            return UUID(text)
        case BinaryType():
            return bytes.fromhex(text)
        case _:
            return int(text)
