"""DuckDB works out the same partition values as stock PyIceberg."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec, partition_record_value
from pyiceberg.schema import Schema
from pyiceberg.transforms import parse_transform
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
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from services.runner.engine.partitions import Partitioning
from services.runner.engine.schema import duckdb_type

VALUES: list[tuple[IcebergType, list[Any]]] = [
    (BooleanType(), [True, False]),
    (IntegerType(), [0, -1, 34, 2**31 - 1, -(2**31)]),
    (LongType(), [0, -1, 34, 2**63 - 1, -(2**63)]),
    (FloatType(), [1.5, 0.25]),
    (DoubleType(), [1.5, 0.1, 1e300, -0.0, float("inf")]),
    (DecimalType(9, 2), [Decimal("14.20"), Decimal("-0.05"), Decimal("0.00"), Decimal("-9999999.99")]),
    (DecimalType(38, 10), [Decimal("14.2000000000"), Decimal("-" + "9" * 28 + "." + "9" * 10)]),
    (DecimalType(38, 0), [Decimal("9" * 38), Decimal(-128)]),
    (StringType(), ["", "iceberg", "näé́🇩🇪x", "a/b=c%20", "n", "v", "\x00a", "__HIVE_DEFAULT_PARTITION__"]),
    (BinaryType(), [b"", b"\x00\x01\x02\x03\xff"]),
    (UUIDType(), [UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7"), UUID(int=0), UUID(int=2**128 - 1)]),
    (DateType(), [date(1970, 1, 1), date(1969, 12, 31), date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)]),
    (TimeType(), [time(0), time(23, 59, 59, 999999)]),
    (
        TimestampType(),
        [
            datetime(1970, 1, 1),  # noqa: DTZ001  # the column has no zone
            datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
            datetime(1, 1, 1, 0, 0, 0, 1),  # noqa: DTZ001
            datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        ],
    ),
    (TimestamptzType(), [datetime(1969, 12, 31, 23, 59, tzinfo=UTC), datetime(2024, 2, 29, 13, 1, tzinfo=UTC)]),
]

TRANSFORMS = [
    "identity", "year", "month", "day", "hour", "void",
    "bucket[1]", "bucket[16]", "bucket[1000]", "truncate[1]", "truncate[3]", "truncate[100]",
]  # fmt: skip

CASES = [
    pytest.param(kind, transform, values, id=f"{transform} of {kind}")
    for kind, values in VALUES
    for transform in TRANSFORMS
    if parse_transform(transform).can_transform(kind)
]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'Asia/Tokyo'")
        yield connection


@pytest.mark.parametrize(("kind", "transform", "values"), CASES)
def test_values_are_those_of_pyiceberg(
    connection: duckdb.DuckDBPyConnection, kind: IcebergType, transform: str, values: list[Any]
) -> None:
    schema = Schema(NestedField(7, "x", kind, required=False))
    field = PartitionField(7, 1000, parse_transform(transform), "p")
    partitioning = Partitioning(PartitionSpec(field), schema)
    [expression] = partitioning.expressions()
    partitioning.prepare(connection)
    connection.execute(f"create or replace temp table given (place integer, c7 {duckdb_type(kind)})")
    connection.executemany("insert into given values ($1, $2)", list(enumerate([None, *values])))

    texts = connection.execute(f"select {expression} from given order by place").fetchall()

    mine = [partitioning.record(text)[0] for text in texts]
    transformed = field.transform.transform(kind)
    stock = [None, *(transformed(internal(field, value, schema)) for value in values)]
    assert list(zip(mine, map(type, mine), strict=True)) == list(zip(stock, map(type, stock), strict=True))


def internal(field: PartitionField, value: Any, schema: Schema) -> Any:
    """A value as PyIceberg partitions it."""
    return value if isinstance(value, UUID) else partition_record_value(field, value, schema)
