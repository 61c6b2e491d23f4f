"""From DuckDB's types to Iceberg's, and how the columns of new rows meet those of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import duckdb
from duckdb.sqltypes import DuckDBPyType
from pyiceberg.schema import Schema
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

from services.runner.engine.statement import identifier

_PRIMITIVES: Final[dict[str, tuple[PrimitiveType, str]]] = {
    "boolean": (BooleanType(), "BOOLEAN"),
    "tinyint": (IntegerType(), "INTEGER"),
    "smallint": (IntegerType(), "INTEGER"),
    "integer": (IntegerType(), "INTEGER"),
    "utinyint": (IntegerType(), "INTEGER"),
    "usmallint": (IntegerType(), "INTEGER"),
    "uinteger": (LongType(), "BIGINT"),
    "bigint": (LongType(), "BIGINT"),
    "ubigint": (DecimalType(20, 0), "DECIMAL(20,0)"),
    "hugeint": (DecimalType(38, 0), "DECIMAL(38,0)"),
    "uhugeint": (DecimalType(38, 0), "DECIMAL(38,0)"),
    "float": (FloatType(), "FLOAT"),
    "double": (DoubleType(), "DOUBLE"),
    "varchar": (StringType(), "VARCHAR"),
    "enum": (StringType(), "VARCHAR"),
    "uuid": (UUIDType(), "UUID"),
    "blob": (BinaryType(), "BLOB"),
    "date": (DateType(), "DATE"),
    "time": (TimeType(), "TIME"),
    "timestamp": (TimestampType(), "TIMESTAMP"),
    "timestamp_s": (TimestampType(), "TIMESTAMP"),
    "timestamp_ms": (TimestampType(), "TIMESTAMP"),
    # Iceberg's second version keeps microseconds.
    "timestamp_ns": (TimestampType(), "TIMESTAMP"),
    "timestamp with time zone": (TimestamptzType(), "TIMESTAMP WITH TIME ZONE"),
}
"""DuckDB's type → the Iceberg type that keeps it, and the DuckDB type to cast it to before it is written."""


class SchemaError(Exception):
    """The columns of a query cannot be written to the table; the message names the column and both types."""


@dataclass(frozen=True)
class Column:
    """A column of a query's result."""

    name: str
    type: DuckDBPyType


@dataclass(frozen=True)
class Projection:
    """What is written: the table's schema, with ids, and the query's columns cast to it."""

    schema: Schema
    expressions: tuple[str, ...]
    field_ids: str
    """As `COPY … (FIELD_IDS …)` takes them."""


def columns_of(connection: duckdb.DuckDBPyConnection, query: str) -> list[Column]:
    """The columns of a query, which is bound and not run; `SchemaError` where two have one name."""
    described = connection.execute(f"describe {query}").fetchall()
    columns = [Column(name, connection.type(kind)) for name, kind, *_ in described]
    seen: set[str] = set()
    for column in columns:
        if column.name.lower() in seen:
            raise SchemaError(f"two columns are called {column.name!r}; give one of them another name")
        seen.add(column.name.lower())
    return columns


def schema_of(columns: Sequence[Column]) -> Schema:
    """The schema of a new table for these columns, in their order; its ids are unique, the catalog gives new ones."""
    numbers = count(1)
    return Schema(
        *(
            NestedField(next(numbers), column.name, iceberg_type(column.type, column.name, numbers), required=False)
            for column in columns
        )
    )


def merged_schema(table: Schema, columns: Sequence[Column]) -> list[tuple[str, IcebergType]]:
    """What must change in a table's schema for these columns: names with their new type, or of new columns.

    A column that the query does not give stays, and is null in what is written. `SchemaError` for a change that
    Iceberg does not allow.
    """
    changes: list[tuple[str, IcebergType]] = []
    for column in columns:
        wanted = iceberg_type(column.type, column.name)
        field = _field(table, column.name)
        if field is None:
            changes.append((column.name, wanted))
        elif (widened := _wider(field.field_type, wanted, column)) != field.field_type:
            changes.append((field.name, widened))
    return changes


def projection(schema: Schema, columns: Sequence[Column]) -> Projection:
    """How the columns of a query are written under a schema that has them all."""
    expressions, ids = [], []
    for column in columns:
        field = _field(schema, column.name)
        assert field is not None, "the schema was merged with the columns"
        name = identifier(column.name)
        expressions.append(f"{name}::{duckdb_type(field.field_type)} as {identifier(field.name)}")
        ids.append(f"{identifier(field.name)}: {_field_ids(field)}")
    return Projection(schema, tuple(expressions), "{" + ", ".join(ids) + "}")


def iceberg_type(kind: DuckDBPyType, column: str, numbers: Iterator[int] | None = None) -> IcebergType:
    """The Iceberg type that keeps values of a DuckDB type; `SchemaError` names the column if there is none."""
    numbers = numbers or count(1)
    match kind.id:
        case "decimal":
            children = _children(kind)
            return DecimalType(int(children["precision"]), int(children["scale"]))
        case "list" | "array":
            child = _children(kind)["child"]
            number = next(numbers)
            return ListType(number, iceberg_type(child, column, numbers), element_required=False)
        case "map":
            children = _children(kind)
            key, value = next(numbers), next(numbers)
            return MapType(
                key,
                iceberg_type(children["key"], column, numbers),
                value,
                iceberg_type(children["value"], column, numbers),
                value_required=False,
            )
        case "struct":
            return StructType(
                *(
                    NestedField(next(numbers), name, iceberg_type(child, column, numbers), required=False)
                    for name, child in _children(kind).items()
                )
            )
        case known if known in _PRIMITIVES:
            return _PRIMITIVES[known][0]
        case _:
            raise SchemaError(f"column {column!r} has the type {kind}, which Iceberg cannot keep; cast it to another")


def _children(kind: DuckDBPyType) -> dict[str, Any]:
    return dict(kind.children)


_NAMES: Final[dict[type[IcebergType], str]] = {type(iceberg): name for iceberg, name in _PRIMITIVES.values()}


def duckdb_type(kind: IcebergType) -> str:
    """The DuckDB type in which values of an Iceberg type are written, as SQL."""
    match kind:
        case DecimalType():
            return f"DECIMAL({kind.precision},{kind.scale})"
        case ListType():
            return f"{duckdb_type(kind.element_type)}[]"
        case MapType():
            return f"MAP({duckdb_type(kind.key_type)}, {duckdb_type(kind.value_type)})"
        case StructType():
            fields = ", ".join(f"{identifier(field.name)} {duckdb_type(field.field_type)}" for field in kind.fields)
            return f"STRUCT({fields})"
        case _ if type(kind) in _NAMES:
            return _NAMES[type(kind)]
        case _:
            raise SchemaError(f"the table has a column of the type {kind}, which cannot be written")


def _wider(present: IcebergType, wanted: IcebergType, column: Column) -> IcebergType:
    """The type that keeps the table's values and the new ones, if the table's can be widened to it."""
    match present, wanted:
        case (IntegerType(), LongType()) | (FloatType(), DoubleType()):
            return wanted
        case (LongType(), IntegerType()) | (DoubleType(), FloatType() | IntegerType()):
            return present
        case DecimalType(), IntegerType() | LongType():
            digits = 10 if isinstance(wanted, IntegerType) else 19
            return _wider_decimal(present, DecimalType(min(digits + present.scale, 38), present.scale), column)
        case DecimalType(), DecimalType():
            return _wider_decimal(present, wanted, column)
        case (ListType(), ListType()) | (MapType(), MapType()) | (StructType(), StructType()):
            return _same_shape(present, wanted, column)
    if present == wanted:
        return present
    raise _impossible(present, wanted, column)


def _wider_decimal(present: DecimalType, wanted: DecimalType, column: Column) -> DecimalType:
    """Iceberg lets the digits before the point grow, never those after it."""
    if wanted.scale > present.scale:
        raise _impossible(present, wanted, column)
    precision = max(present.precision, wanted.precision - wanted.scale + present.scale)
    if precision > 38:
        raise _impossible(present, wanted, column)
    return DecimalType(precision, present.scale)


def _same_shape(present: IcebergType, wanted: IcebergType, column: Column) -> IcebergType:
    if duckdb_type(present) != duckdb_type(wanted):
        raise _impossible(present, wanted, column)
    return present


def _impossible(present: IcebergType, wanted: IcebergType, column: Column) -> SchemaError:
    return SchemaError(
        f"column {column.name!r} is {plain(present)} in the table and {plain(wanted)} ({column.type}) in the query,"
        " and the one cannot become the other"
    )


def plain(kind: IcebergType) -> str:
    """A type without the ids of its fields."""
    match kind:
        case ListType():
            return f"list<{plain(kind.element_type)}>"
        case MapType():
            return f"map<{plain(kind.key_type)}, {plain(kind.value_type)}>"
        case StructType():
            return f"struct<{', '.join(f'{field.name}: {plain(field.field_type)}' for field in kind.fields)}>"
        case _:
            return str(kind)


def _field(schema: Schema, name: str) -> NestedField | None:
    """The column of that name as DuckDB sees names, which differ by more than case."""
    exact = [field for field in schema.fields if field.name == name]
    return next(iter(exact or [field for field in schema.fields if field.name.lower() == name.lower()]), None)


def _field_ids(field: NestedField) -> str:
    inner = _inner_ids(field.field_type)
    return f"{{__duckdb_field_id: {field.field_id}, {', '.join(inner)}}}" if inner else str(field.field_id)


def _inner_ids(kind: IcebergType) -> list[str]:
    match kind:
        case ListType():
            return [f"element: {_field_ids(kind.element_field)}"]
        case MapType():
            return [f"key: {_field_ids(kind.key_field)}", f"value: {_field_ids(kind.value_field)}"]
        case StructType():
            return [f"{identifier(field.name)}: {_field_ids(field)}" for field in kind.fields]
        case _:
            return []
