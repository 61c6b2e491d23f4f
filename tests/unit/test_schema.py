"""DuckDB's types become Iceberg's, and the columns of new rows meet those of a table."""

from collections.abc import Iterator

import duckdb
import pytest
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.types import DecimalType, IcebergType, LongType, StringType

from services.runner.engine.schema import (
    SchemaError,
    columns_of,
    duckdb_type,
    field_ids,
    merged_schema,
    plain,
    schema_of,
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def schema(connection: duckdb.DuckDBPyConnection, query: str) -> Schema:
    return assign_fresh_schema_ids(schema_of(columns_of(connection, query)))


@pytest.mark.parametrize(
    ("value", "iceberg", "written_as"),
    [
        ("true", "boolean", "BOOLEAN"),
        ("1::tinyint", "int", "INTEGER"),
        ("1::usmallint", "int", "INTEGER"),
        ("1::int", "int", "INTEGER"),
        ("1::uinteger", "long", "BIGINT"),
        ("1::bigint", "long", "BIGINT"),
        ("1::ubigint", "decimal(20, 0)", "DECIMAL(20,0)"),
        ("1::hugeint", "decimal(38, 0)", "DECIMAL(38,0)"),
        ("1::uhugeint", "decimal(38, 0)", "DECIMAL(38,0)"),
        ("1::float", "float", "FLOAT"),
        ("1::double", "double", "DOUBLE"),
        ("1.5::decimal(10, 2)", "decimal(10, 2)", "DECIMAL(10,2)"),
        ("'a'", "string", "VARCHAR"),
        ("'a'::enum('a', 'b')", "string", "VARCHAR"),
        ("'{}'::json", "string", "VARCHAR"),
        ("uuid()", "uuid", "UUID"),
        ("'a'::blob", "binary", "BLOB"),
        ("date '2026-01-01'", "date", "DATE"),
        ("time '10:00'", "time", "TIME"),
        ("timestamp '2026-01-01'", "timestamp", "TIMESTAMP"),
        ("timestamp_s '2026-01-01'", "timestamp", "TIMESTAMP"),
        ("timestamp_ns '2026-01-01'", "timestamp", "TIMESTAMP"),
        ("now()", "timestamptz", "TIMESTAMP WITH TIME ZONE"),
        ("[1]", "list<int>", "INTEGER[]"),
        ("[1, 2]::utinyint[2]", "list<int>", "INTEGER[]"),
        ("map {'a': [1.5]}", "map<string, list<decimal(2, 1)>>", "MAP(VARCHAR, DECIMAL(2,1)[])"),
        (
            "{'a': 1, 'b c': {'d': 'x'}}",
            "struct<a: int, b c: struct<d: string>>",
            'STRUCT("a" INTEGER, "b c" STRUCT("d" VARCHAR))',
        ),
    ],
)
def test_a_type_is_kept_as_the_iceberg_type_that_holds_all_its_values(
    connection: duckdb.DuckDBPyConnection, value: str, iceberg: str, written_as: str
) -> None:
    [field] = schema(connection, f"select {value} as x").fields

    assert plain(field.field_type) == iceberg
    assert duckdb_type(field.field_type) == written_as
    assert not field.required


@pytest.mark.parametrize(
    "value", ["interval 1 day", "'1'::bit", "timetz '10:00+00'", "union_value(a := 1)", "1::bignum"]
)
def test_a_type_that_iceberg_cannot_keep_is_refused_with_its_column(
    connection: duckdb.DuckDBPyConnection, value: str
) -> None:
    with pytest.raises(SchemaError, match=r"column 'odd' has the type .*, which Iceberg cannot keep"):
        schema(connection, f"select 1 as fine, {value} as odd")


def test_two_columns_of_one_name_are_refused_in_any_case(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(SchemaError, match="two columns are called 'ID'"):
        schema(connection, "select 1 as id, 2 as ID")


def test_what_is_written_has_the_ids_of_the_tables_columns_nested_ones_too(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    simple, nested = schema(connection, "select 1 as a, [{'c \"\"': map {'d': 1}}] as e").fields

    assert field_ids(simple) == "1"
    assert field_ids(nested) == (
        '{__duckdb_field_id: 2, element: {__duckdb_field_id: 3, "c """"": {__duckdb_field_id: 4, key: 5, value: 6}}}'
    )


@pytest.mark.parametrize(
    ("table", "query", "changes"),
    [
        ("select 1 as id", "select 1 as id", []),
        ("select 1 as id, 'a' as name", "select 1 as id", []),
        ("select 1 as id", "select 1 as id, 'a' as name", [("name", StringType())]),
        ("select 1 as id", "select 1::bigint as ID", [("id", LongType())]),
        ("select 1::bigint as id", "select 1::tinyint as id", []),
        ("select 1::double as x", "select 1::float as x", []),
        ("select 1::double as x", "select 1::int as x", []),
        ("select 1::decimal(10, 2) as x", "select 1::decimal(12, 2) as x", [("x", DecimalType(12, 2))]),
        ("select 1::decimal(10, 2) as x", "select 1::decimal(10, 0) as x", [("x", DecimalType(12, 2))]),
        ("select 1::decimal(20, 0) as x", "select 1::bigint as x", []),
        ("select [1] as x", "select [2] as x", []),
    ],
)
def test_columns_are_added_and_widened_as_iceberg_allows(
    connection: duckdb.DuckDBPyConnection, table: str, query: str, changes: list[tuple[str, IcebergType]]
) -> None:
    assert merged_schema(schema(connection, table), columns_of(connection, query)) == changes


@pytest.mark.parametrize(
    ("table", "query", "told"),
    [
        ("select 'a' as x", "select 1 as x", "string in the table and int"),
        ("select 1 as x", "select 'a' as x", "int in the table and string"),
        ("select 1::bigint as x", "select 1::double as x", "long in the table and double"),
        ("select 1.5::decimal(4, 1) as x", "select 1.55::decimal(5, 2) as x", r"decimal\(4, 1\) in the table"),
        ("select 1::decimal(38, 2) as x", "select 1::decimal(38, 0) as x", r"decimal\(38, 2\) in the table"),
        ("select date '2026-01-01' as x", "select now() as x", "date in the table and timestamptz"),
        ("select [1] as x", "select ['a'] as x", "list<int> in the table and list<string>"),
    ],
)
def test_an_impossible_change_names_both_types(
    connection: duckdb.DuckDBPyConnection, table: str, query: str, told: str
) -> None:
    with pytest.raises(SchemaError, match=f"column 'x' is {told}"):
        merged_schema(schema(connection, table), columns_of(connection, query))
