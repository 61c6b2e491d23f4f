"""The columns of a pipeline's query are followed to those of the tables and files that they are made of."""

from collections.abc import Iterator

import duckdb
import pytest

from contracts.pipelines import Validation
from services.catalog.code.columns import trace
from services.runner.validate import validate

COLUMNS = {
    "default.silver.orders": ["id", "Amount", "customer_id"],
    "default.silver.customers": ["id", "name"],
    "default.gold.mine": ["id", "Amount", "total"],
}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def checked(connection: duckdb.DuckDBPyConnection, sql: str) -> Validation:
    return validate(connection, "default.gold.mine", {"pipeline.sql": sql})


def traced(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, list[str]]:
    found = checked(connection, sql)
    assert found.valid, found.files
    assert found.query_sql is not None
    return {
        line.name: [f"{source.name}.{source.column}" for source in line.sources]
        for line in trace(found.query_sql, COLUMNS, "default.gold.mine")
    }


def test_columns_are_followed_through_joins_expressions_and_ctes(connection: duckdb.DuckDBPyConnection) -> None:
    sql = """
    with paid as (select id, customer_id, amount * 2 as double from {{ ref('silver.orders') }} where amount > 0)
    select paid.*, upper(name) as who, paid.double + paid.id as sum, count(*) as n, 1 as one
    from paid join {{ ref('silver.customers') }} c on c.id = customer_id
    group by all
    """

    assert traced(connection, sql) == {
        "id": ["default.silver.orders.id"],
        "customer_id": ["default.silver.orders.customer_id"],
        "double": ["default.silver.orders.Amount"],
        "who": ["default.silver.customers.name"],
        "sum": ["default.silver.orders.Amount", "default.silver.orders.id"],
        "n": [],
        "one": [],
    }


def test_a_star_gives_the_columns_that_the_table_has(connection: duckdb.DuckDBPyConnection) -> None:
    assert traced(connection, "from {{ ref('silver.customers') }}") == {
        "id": ["default.silver.customers.id"],
        "name": ["default.silver.customers.name"],
    }


@pytest.mark.parametrize(
    "files",
    ["{{ landing_zone('orders') }}", "read_csv({{ landing_zone('orders') }}, header = true)"],
)
def test_a_star_over_files_gives_the_columns_that_came_of_it(connection: duckdb.DuckDBPyConnection, files: str) -> None:
    assert traced(connection, f"select *, amount * 2 as total from {files}") == {
        "id": ["default/orders.id"],
        "Amount": ["default/orders.Amount"],
        "total": ["default/orders.amount"],
    }


def test_a_table_may_be_made_of_itself_and_be_named_in_full(connection: duckdb.DuckDBPyConnection) -> None:
    sql = "select mine.id from default.gold.mine union all select default.silver.orders.id from default.silver.orders"

    assert traced(connection, sql) == {"id": ["default.gold.mine.id", "default.silver.orders.id"]}


def test_what_is_conditional_is_told_as_a_later_run_has_it(connection: duckdb.DuckDBPyConnection) -> None:
    sql = """
    -- @merge_strategy: append_only
    select id from {% if is_incremental() %}{{ ref('silver.orders') }}{% else %}{{ ref('silver.customers') }}{% endif %}
    """

    assert traced(connection, sql) == {"id": ["default.silver.orders.id"]}


@pytest.mark.parametrize(
    "sql",
    [
        "{orders} union all by name {customers}",
        "with u as ({orders} union by name {customers}) select * from u",
        "with o as ({orders}), c as ({customers}) from (from o union all by name (from c)) order by id limit 3",
        "select id, Amount from default.silver.orders union all by name select customer_id from default.silver.orders"
        " union all by name {customers}",
    ],
)
def test_unions_by_name_are_followed_by_name(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    orders, customers = (f"select * from {{{{ ref('silver.{name}') }}}}" for name in ("orders", "customers"))

    assert traced(connection, sql.format(orders=orders, customers=customers)) == {
        "id": ["default.silver.customers.id", "default.silver.orders.id"],
        "Amount": ["default.silver.orders.Amount"],
        "customer_id": ["default.silver.orders.customer_id"],
        "name": ["default.silver.customers.name"],
    }


def test_a_query_that_cannot_be_taken_apart_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    sql = "from {{ landing_zone('orders') }} union all by name select * from {{ ref('silver.customers') }}"
    query = checked(connection, sql).query_sql

    assert query is not None
    with pytest.raises(ValueError, match="a union by name over files, whose columns no query tells"):
        trace(query, COLUMNS, "default.gold.mine")


def test_neither_python_nor_a_very_long_query_is_told(connection: duckdb.DuckDBPyConnection) -> None:
    python = validate(connection, "default.gold.mine", {"pipeline.py": "def pipeline(ctx):\n    return None\n"})

    assert python.valid
    assert python.query_sql is None
    assert checked(connection, "select 1 as a --" + "x" * 100_000).query_sql is None
