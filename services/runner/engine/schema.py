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

from services.runner.config import SchemaChange
from services.runner.engine.statement import identifier
from shared.lakehouse.shape import is_readable_as

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


def nulls_as_in_table(
    connection: duckdb.DuckDBPyConnection, query: str, columns: Sequence[Column], table: Schema
) -> list[Column]:
    """The columns of a query, where NULL without a type has that of the table's column: DuckDB takes it for INTEGER."""
    unfit = [one.name for one in columns if str(one.type) in _UNTYPED and not _fits(table, one)]
    if not unfit:
        return list(columns)
    connection.execute(f"create or replace temp view {_TYPED} as {query}")
    found = connection.execute(
        f"select column_name from duckdb_columns() where table_name = '{_TYPED}' and data_type in ($1, $2)",
        [*_UNTYPED.values()],
    ).fetchall()
    connection.execute(f"drop view {_TYPED}")
    nulls = {name for (name,) in found} & set(unfit)
    types = {one.name: field.field_type for one in columns if (field := field_of(table, one.name)) is not None}
    return [
        Column(one.name, connection.type(duckdb_type(types[one.name]))) if one.name in nulls else one for one in columns
    ]


_TYPED: Final = "__rat_typed"
_UNTYPED: Final = {"INTEGER": '"NULL"', "INTEGER[]": '"NULL"[]'}
"""What DuckDB takes a type for that is none."""


def _fits(table: Schema, column: Column) -> bool:
    try:
        merged_schema(table, [column])
    except SchemaError:
        return False
    return True


def schema_of(columns: Sequence[Column]) -> Schema:
    """The schema of a new table for these columns, in their order; its ids are unique, the catalog gives new ones."""
    numbers = count(1)
    return Schema(
        *(
            NestedField(next(numbers), column.name, iceberg_type(column.type, column.name, numbers), required=False)
            for column in columns
        )
    )


def new_schema(present: Schema | None, columns: Sequence[Column], change: SchemaChange) -> Schema:
    """The columns of a table that takes in these, as its config says; the table knows those by id that it has by name.

    `SchemaError` for a change that Iceberg does not allow, or that the config does not.
    """
    if present is None or change is SchemaChange.REPLACE:
        return schema_of(columns)
    changes = merged_schema(present, columns)
    if change is SchemaChange.FAIL:
        _refuse(present, columns, changes)
    types = dict(changes)
    fields = [
        field.model_copy(update={"field_type": types.pop(field.name, field.field_type)}) for field in present.fields
    ]
    numbers = count(present.highest_field_id + 1)
    return Schema(*fields, *(NestedField(next(numbers), name, kind, required=False) for name, kind in types.items()))


def merged_schema(table: Schema, columns: Sequence[Column]) -> list[tuple[str, IcebergType]]:
    """What must change in a table's schema for these columns: names with their new type, or of new columns.

    A column that the query does not give stays, and is null in what is written. `SchemaError` for a change that
    Iceberg does not allow.
    """
    changes: list[tuple[str, IcebergType]] = []
    for column in columns:
        field = field_of(table, column.name)
        if field is None:
            changes.append((column.name, iceberg_type(column.type, column.name)))
        elif (widened := _widened(field.field_type, column)) != field.field_type:
            changes.append((field.name, widened))
    return changes


def _refuse(table: Schema, columns: Sequence[Column], changes: Sequence[tuple[str, IcebergType]]) -> None:
    """Raise `SchemaError` where a query gives other columns than the table has."""
    types = {field.name: field.field_type for field in table.fields}
    said = [
        f"{name!r} is {plain(types[name])} in the table and {plain(kind)} in the query"
        if name in types
        else f"{name!r} ({plain(kind)}) is not in the table"
        for name, kind in changes
    ]
    given = {column.name.lower() for column in columns}
    said += [
        f"{name!r} ({plain(kind)}) is not in the query" for name, kind in types.items() if name.lower() not in given
    ]
    if said:
        raise SchemaError(f"on_schema_change is fail, and the columns have changed: {'; '.join(said)}")


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


def _widened(present: IcebergType, column: Column) -> IcebergType:
    """The type that keeps the table's values and the new ones, if the table's can be widened to it."""
    wanted = iceberg_type(column.type, column.name)
    widened = _wider(present, wanted)
    if widened is None:
        raise SchemaError(
            f"column {column.name!r} is {plain(present)} in the table and {plain(wanted)} ({column.type}) in the query,"
            " and the one cannot become the other"
        )
    return widened


def _wider(present: IcebergType, wanted: IcebergType) -> IcebergType | None:
    """The type that keeps values of both, if there is one that Iceberg lets the present one become."""
    match present, wanted:
        case DoubleType(), IntegerType():
            return present
        case DecimalType(), IntegerType() | LongType():
            digits = 10 if isinstance(wanted, IntegerType) else 19
            return _wider_decimal(present, DecimalType(min(digits + present.scale, 38), present.scale))
        case DecimalType(), DecimalType():
            return _wider_decimal(present, wanted)
        case ListType(), ListType():
            element = _wider(present.element_type, wanted.element_type)
            return element and ListType(present.element_id, element, present.element_required)
        case MapType(), MapType():
            key, value = _wider(present.key_type, wanted.key_type), _wider(present.value_type, wanted.value_type)
            return key and value and MapType(present.key_id, key, present.value_id, value, present.value_required)
        case StructType(), StructType():
            return _wider_struct(present, wanted)
    if is_readable_as(present, wanted):
        return wanted
    return present if is_readable_as(wanted, present) else None


def _wider_struct(present: StructType, wanted: StructType) -> StructType | None:
    """The fields of both: those that are there keep their place, new ones follow."""
    new = {field.name.lower(): field for field in wanted.fields}
    fields: list[NestedField] = []
    for field in present.fields:
        given = new.pop(field.name.lower(), None)
        kind = _wider(field.field_type, given.field_type) if given is not None else field.field_type
        if kind is None:
            return None
        fields.append(field.model_copy(update={"field_type": kind}))
    return StructType(*fields, *new.values())


def _wider_decimal(present: DecimalType, wanted: DecimalType) -> DecimalType | None:
    """Iceberg lets the digits before the point grow, never those after it."""
    precision = max(present.precision, wanted.precision - wanted.scale + present.scale)
    if wanted.scale > present.scale or precision > 38:
        return None
    return DecimalType(precision, present.scale)


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


def field_of(schema: Schema, name: str) -> NestedField | None:
    """The column of that name as DuckDB sees names, which differ by more than case."""
    exact = [field for field in schema.fields if field.name == name]
    return next(iter(exact or [field for field in schema.fields if field.name.lower() == name.lower()]), None)


def field_ids(field: NestedField) -> str:
    """The ids of a column and of what is inside it, as `COPY … (FIELD_IDS …)` takes them."""
    inner = _inner_ids(field.field_type)
    return f"{{__duckdb_field_id: {field.field_id}, {', '.join(inner)}}}" if inner else str(field.field_id)


def _inner_ids(kind: IcebergType) -> list[str]:
    match kind:
        case ListType():
            return [f"element: {field_ids(kind.element_field)}"]
        case MapType():
            return [f"key: {field_ids(kind.key_field)}", f"value: {field_ids(kind.value_field)}"]
        case StructType():
            return [f"{identifier(field.name)}: {field_ids(field)}" for field in kind.fields]
        case _:
            return []
