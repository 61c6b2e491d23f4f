"""Which statements may run, what they name, and how their mistakes are told."""

import duckdb
import pytest

from contracts.names import Qualified
from services.query.domain import Problem, error_of, unknown_table
from services.query.tables import facts_of, type_name
from services.query.worker import Refused, parse, unique
from shared.errors import Exhausted, Internal, Invalid, TimedOut, Unavailable
from shared.sql_names import quote_reserved


def names(sql: str, namespace: str = "default") -> set[str]:
    with duckdb.connect() as connection:
        found = parse(connection, quote_reserved(sql).sql, namespace)
    return {str(reference.table) for reference in found.references}


def refusal(sql: str) -> str:
    with duckdb.connect() as connection, pytest.raises((Refused, duckdb.Error)) as raised:
        parse(connection, quote_reserved(sql).sql, "default")
    return str(raised.value)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("select 1", set()),
        ("from default.bronze.a", {"default.bronze.a"}),
        ('from "Other"."SILVER".A', {"other.silver.a"}),
        (
            "from gold.a, silver.b as b join default.gold.c using (x)",
            {"default.gold.a", "default.silver.b", "default.gold.c"},
        ),
        (
            "with t as (from gold.a) select * from t where x in (select y from gold.b)",
            {"default.gold.a", "default.gold.b"},
        ),
        (
            "select (from gold.a limit 1), exists (from gold.b) order by (from gold.c)",
            {"default.gold.a", "default.gold.b", "default.gold.c"},
        ),
        ("explain analyze select * from gold.a", {"default.gold.a"}),
        ("explain (format json) from gold.a", {"default.gold.a"}),
        ("describe gold.a", {"default.gold.a"}),
        ("summarize gold.a", {"default.gold.a"}),
        ("pivot gold.a on x in (1, 2) using sum(y)", {"default.gold.a"}),
        ("unpivot gold.a on x into name k value v", {"default.gold.a"}),
        (
            "from gold.a union all from gold.b except from gold.c",
            {"default.gold.a", "default.gold.b", "default.gold.c"},
        ),
        ("select 'from gold.a' -- from gold.b", set()),
        ("from gold.a positional join (values (1), ((select 1 from gold.b)))", {"default.gold.a", "default.gold.b"}),
    ],
)
def test_every_table_that_a_statement_names_is_found(sql, tables):
    assert names(sql) == tables


def test_two_parts_are_looked_for_in_the_namespace_of_the_query():
    assert names("from gold.a", "shop") == {"shop.gold.a"}


def test_places_in_an_explained_statement_are_those_of_the_whole():
    with duckdb.connect() as connection:
        found = parse(connection, "explain analyze select * from gold.a", "default")

    assert found.references[0].position == len("explain analyze select * from ")


@pytest.mark.parametrize(
    "sql",
    [
        "show tables",
        "show all tables",
        "describe",
        "from information_schema.tables",
        "from duckdb_columns()",
        "from pg_catalog.pg_class",
    ],
)
def test_who_asks_which_tables_there_are_is_seen(sql):
    with duckdb.connect() as connection:
        assert parse(connection, sql, "default").lists_tables


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("insert into gold.a values (1)", "this is INSERT"),
        ("pragma table_info('a')", "this is PRAGMA"),
        ("explain analyze insert into gold.a values (1)", "this is EXPLAIN"),
        ("explain (format json) delete from gold.a", "this is EXPLAIN"),
        ("select 1; select 2", "2 statements"),
        ("", "0 statements"),
        ("from read_csv('/etc/passwd')", "read_csv() cannot be used here"),
        ("from Read_Text('/etc/passwd')", "read_text() cannot be used here"),
        ("select 1 from range(3) where exists (from glob('*'))", "glob() cannot be used here"),
        ("from '/etc/passwd'", "reads no files"),
        ("from 'a.csv'", "reads no files"),
        ("from 's3:x'", "reads no files"),
        ('from information_schema."a.csv"', "reads no files"),
        ('from "s3://rat/x".bronze.parquet', "reads no files"),
        ("selec 1", "syntax error"),
        (f"select {'1+' * 2000}1", "Max expression depth"),
    ],
)
def test_what_may_not_run_is_refused_by_name(sql, says):
    assert says in refusal(sql)


def test_an_unknown_table_brings_near_names_or_explains_names():
    known = [Qualified("default", "bronze", "orders"), Qualified("shop", "gold", "sales")]
    with duckdb.connect() as connection:
        [near] = parse(connection, "from bronze.ordres", "default").references
        [far] = parse(connection, "from main.x", "default").references

    assert "Did you mean bronze.orders" in unknown_table(near, known, "default").message
    assert "'main' is no layer" in unknown_table(far, [], "default").message


def test_a_mistake_is_shown_in_the_authors_own_line():
    quoted = quote_reserved("select 1,\n  default.x, " + "y" * 200)
    position = quoted.sql.encode().index(b"yyy")

    error = error_of("Binder", Problem("Binder Error: no y", position), quoted)

    assert isinstance(error, Invalid)
    assert error.details == {"line": 2, "column": 14}
    _, _, excerpt = error.message.partition("\n\n")
    shown, mark = excerpt.split("\n")
    assert shown.startswith("LINE 2:   default.x, yyy")
    assert shown[mark.index("^")] == "y"
    assert shown[mark.index("^") - 1] == " "


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("IO", Unavailable),
        ("HTTP", Unavailable),
        ("INTERNAL", Internal),
        ("Out of Memory", Exhausted),
        ("INTERRUPT", TimedOut),
        ("Conversion", Invalid),
        ("Permission", Invalid),
    ],
)
def test_what_duckdb_says_becomes_an_error_of_ours(kind, error):
    assert type(error_of(kind, Problem("it"), quote_reserved("select 1"))) is error


def test_columns_of_a_result_have_names_of_their_own():
    assert unique(["a", "b", "a", "A", "a_1", "c"]) == ["a", "b", "a_1", "A_2", "a_1_1", "c"]


@pytest.mark.parametrize(
    ("iceberg", "sql"),
    [
        ("long", "BIGINT"),
        ("decimal(10, 2)", "DECIMAL(10,2)"),
        ("fixed[16]", "BLOB"),
        ("geometry(OGC:CRS84)", "GEOMETRY"),
        ({"type": "list", "element": "what is new"}, "what is new[]"),
        ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
        ({"type": "list", "element": "string"}, "VARCHAR[]"),
        ({"type": "map", "key": "string", "value": "int"}, "MAP(VARCHAR, INTEGER)"),
        (
            {"type": "struct", "fields": [{"name": "a b", "type": "int"}, {"name": "c", "type": "date"}]},
            'STRUCT("a b" INTEGER, c DATE)',
        ),
    ],
)
def test_iceberg_types_are_named_as_duckdb_does(iceberg, sql):
    assert type_name(iceberg) == sql


def test_a_table_without_a_snapshot_is_empty():
    facts = facts_of(
        {
            "current-schema-id": 0,
            "schemas": [{"schema-id": 0, "fields": [{"name": "id", "type": "int", "required": True}]}],
            "last-updated-ms": 0,
            "current-snapshot-id": -1,
        }
    )

    assert (facts.row_count, facts.size_bytes) == (0, 0)
    assert facts.columns[0].is_nullable is False
