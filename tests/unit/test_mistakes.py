"""Mistakes that authors make, and what they are told: each message says where, what, and what was expected."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import duckdb
import pytest

from contracts.landing import ClaimedFile
from contracts.names import Qualified
from services.runner.compile import compile_pipeline
from services.runner.engine.binding import Bound, ZoneContent, bind
from services.runner.engine.session import errors_of
from services.runner.engine.statement import Statement
from services.runner.problems import WorkFailed
from services.runner.template import Facts
from services.runner.validate import validate

MINE = Qualified("default", "silver", "mine")


@dataclass(frozen=True)
class Mistake:
    """What an author wrote, and what they are told."""

    told: str
    sql: str = "select 1 as id"
    config: str = ""
    test: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def all_files(self) -> dict[str, str]:
        written = {"pipeline.sql": self.sql, "config.yaml": self.config, "tests/quality/t.sql": self.test}
        return {path: text for path, text in written.items() if text} | self.files


def of(*mistakes: Mistake) -> Any:
    return pytest.mark.parametrize("mistake", [pytest.param(one, id=one.told[:70]) for one in mistakes])


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set errors_as_json = true")
        connection.execute("create table source (id integer, amount double, name varchar, day date)")
        connection.execute("insert into source values (1, 2.5, 'x', '2026-01-01')")
        yield connection


# Found when the pipeline is published, and by every run

SETTINGS = (
    Mistake(
        "config.yaml:3: unknown merge_strategy 'incremntal', did you mean 'incremental'?",
        config="\n\nmerge_strategy: incremntal\nunique_key: id",
    ),
    Mistake("config.yaml:1: unknown key 'uniqe_key', did you mean 'unique_key'?", config="uniqe_key: id"),
    Mistake(
        "pipeline.sql:1: merge_strategy incremental needs unique_key, which is not set",
        sql="-- @merge_strategy: incremental\nselect 1 as id",
    ),
    Mistake(
        "config.yaml:1: merge_strategy snapshot needs partition_column, which is not set",
        config="merge_strategy: snapshot",
    ),
    Mistake("config.yaml:1: max_retries is a whole number, 0 or more, not 'many'", config="max_retries: many"),
    Mistake("config.yaml:1: timeout_seconds is a number of seconds, not '5m'", config="timeout_seconds: 5m"),
    Mistake("config.yaml:1: memory_limit is a size as 512MB or 2GiB, not 'lots'", config="memory_limit: lots"),
    Mistake("config.yaml:1: memory_limit must be at least 64MB, not '1MB'", config="memory_limit: 1MB"),
    Mistake("config.yaml:1: memory_limit must be at most 1000TB, not '99999TB'", config="memory_limit: 99999TB"),
    Mistake("config.yaml:1: merge_strategy is empty: give it a value, or take it out", config="merge_strategy:"),
    Mistake("config.yaml:1: no valid YAML: a value holds itself", config="tags: &tags [*tags]"),
    Mistake("config.yaml:1: max_retries is a whole number, 0 or more, not 'foo'", config="max_retries: !!int foo"),
    Mistake(
        "config.yaml:3: scd_valid_to cannot be 'is_current': scd2 keeps a column of that name beside it",
        config="merge_strategy: scd2\nunique_key: id\nscd_valid_to: is_current",
    ),
    Mistake("config.yaml:1: close_missing is true or false, not 'yes please'", config="close_missing: yes please"),
    Mistake(
        "config.yaml:1: unknown on_schema_change 'evlove', did you mean 'evolve'?", config="on_schema_change: evlove"
    ),
    Mistake(
        "config.yaml:2: on_schema_change replace is for merge_strategy full_refresh only, not for append_only",
        config="merge_strategy: append_only\non_schema_change: replace",
    ),
    Mistake(
        "config.yaml:1: unknown transform 'dya' in partition_by, did you mean 'day'?", config="partition_by: dya(ts)"
    ),
    Mistake(
        "config.yaml:1: partition_by: bucket is written `bucket(16, column)`, not 'bucket(id)'",
        config="partition_by: bucket(id)",
    ),
    Mistake(
        "config.yaml:1: unique_key is a list of different columns, as `id, day`, not 'id, ID'",
        config="unique_key: id, ID",
    ),
    Mistake("config.yaml:2: tags is set twice", config="tags: a\ntags: b"),
    Mistake("config.yaml:1: expected keys and values, as `merge_strategy: append_only`", config="append_only"),
    Mistake("config.yaml:2: no valid YAML: mapping values are not allowed here", config="tags: a\n  description: b"),
    Mistake(
        "config.yaml:2: unique_key names 'idd', which the query does not give, did you mean 'id'?",
        config="merge_strategy: incremental\nunique_key: idd",
        sql="select id, name from {{ ref('bronze.source') }}",
    ),
    Mistake(
        "config.yaml:2: watermark_column names 'updated_at', which the query does not give, expected one of id, name",
        config="merge_strategy: append_only\nwatermark_column: updated_at",
        sql="select id, name from {{ ref('bronze.source') }}",
    ),
    Mistake(
        "config.yaml:1: partition_by names 'dya', which the query does not give, did you mean 'day'?",
        config="partition_by: month(dya)",
        sql="select day from {{ ref('bronze.source') }}",
    ),
    Mistake(
        "pipeline.sql:1: @merge_strategy sets nothing without a colon: write `-- @merge_strategy: value`",
        sql="-- @merge_strategy append_only\nselect 1 as id",
    ),
    Mistake(
        "tests/quality/t.sql:1: unknown severity 'wran', did you mean 'warn'?",
        test="-- @severity: wran\nselect 1",
    ),
    Mistake(
        "pipeline.sql: the pipeline has neither pipeline.sql nor pipeline.py", files={"config.yaml": "tags: a"}, sql=""
    ),
)

JINJA = (
    Mistake(
        "pipeline.sql: the file has characters that are none (NUL, or U+FDD0 to U+FDEF)", sql="select 'a\0b' as name"
    ),
    Mistake(
        "pipeline.sql:2:15: 'reff' is undefined, did you mean 'ref'?", sql="select *\n  from     {{ reff('bronze.x') }}"
    ),
    Mistake(
        "pipeline.sql:1:15: 'watermark' is undefined, did you mean 'watermark_value'?", sql="select 1 > {{ watermark }}"
    ),
    Mistake("pipeline.sql:1: ref() takes a name between quotes: ref('orders')", sql="select * from {{ ref(orders) }}"),
    Mistake(
        "pipeline.sql:1: 'orders' is no table: write 'layer.name', as 'bronze.orders', or all three parts",
        sql="select * from {{ ref('orders') }}",
    ),
    Mistake(
        "pipeline.sql:1: 'sliver.orders' is no table: 'sliver' is no layer, did you mean 'silver'?",
        sql="select * from {{ ref('sliver.orders') }}",
    ),
    Mistake(
        "pipeline.sql:1: 'silver.Orders' is no table: 'Orders' is no name"
        " (names have lower-case letters, digits, '_' and '-', and begin with a letter)",
        sql="select * from {{ ref('silver.Orders') }}",
    ),
    Mistake(
        "pipeline.sql:1: landing_zone() takes only='new', not only='unread'",
        sql="select * from {{ landing_zone('orders', only='unread') }}",
    ),
    Mistake(
        "pipeline.sql:1: landing_zone() got an unexpected keyword argument 'onyl'",
        sql="select * from {{ landing_zone('orders', onyl='new') }}",
    ),
    Mistake(
        "pipeline.sql:1: 'Orders' is not the name of a landing zone"
        " (names have lower-case letters, digits, '_' and '-', and begin with a letter)",
        sql="select * from {{ landing_zone('Orders') }}",
    ),
    Mistake("pipeline.sql:1: unexpected '}', expected ')'", sql="select * from {{ ref('bronze.x' }}"),
    Mistake(
        "pipeline.sql:2: {% if %} is never closed: expected {% elif %} or {% else %} or {% endif %}",
        sql="select 1 as id\n{% if is_incremental() %} where true",
    ),
    Mistake("pipeline.sql:1: there is no tag {% iff %}, did you mean 'if'?", sql="{% iff is_incremental() %} select 1"),
    Mistake("pipeline.sql:2: {% endif %} belongs to no tag that is open here", sql="select 1 as id\n{% endif %}"),
    Mistake(
        "pipeline.sql:1: {% endfor %} does not belong here: {% if %} is open,"
        " expected {% elif %} or {% else %} or {% endif %}",
        sql="{% if true %}select 1 as id{% endfor %}",
    ),
    Mistake(
        "pipeline.sql:1: there is no tag {% endfi %}, did you mean 'endif'?",
        sql="{% if true %}select 1 as id{% endfi %}",
    ),
    Mistake("pipeline.sql:1: expected '}}', got 'as'", sql="select {{ name as x"),
    Mistake("pipeline.sql:1: unexpected '}}'", sql="select {{ 1 + }} as x"),
    Mistake("pipeline.sql:1: unexpected end of the file, expected '%}'", sql="select 1 as id {% if true"),
    Mistake("pipeline.sql:1: expected the name of a tag behind {%, as {% if … %}", sql="select 10 {% 3 as x"),
    Mistake(
        "pipeline.sql:1: there are no other files to include, import or extend here: write macros into this one",
        sql="{% include 'macros.sql' %} select 1 as id",
    ),
    Mistake(
        "pipeline.sql:1: a piece of SQL, as ref(…) and this give it, has no attribute 'schema'",
        sql="select '{{ this.schema }}' as x",
    ),
    Mistake("pipeline.sql:1:4: 'config' is undefined", sql="{{ config(materialized='table') }} select 1 as id"),
    Mistake("pipeline.sql:1: 'str' object is not callable", sql="select '{{ name() }}' as x"),
    Mistake("pipeline.sql:1: ref() got an unexpected keyword argument 'table'", sql="from {{ ref(table='bronze.x') }}"),
    Mistake("pipeline.sql:1: division by zero", sql="select {{ 1 / 0 }}"),
    Mistake(
        "pipeline.sql:1: access to attribute '__class__' of 'str' object is unsafe.", sql="select {{ ''.__class__ }}"
    ),
    Mistake(
        "pipeline.sql:2: there is no watermark_value: the pipeline sets no watermark_column",
        sql="select 1 as id\nwhere 1 > {{ watermark_value }}",
    ),
    Mistake(
        "pipeline.sql:2: there is no watermark_value: default.silver.mine has no value in 'id' yet;"
        " write what uses it inside {% if watermark_value %} … {% endif %}",
        sql="select 1 as id\nwhere 1 > {{ watermark_value }}",
        config="watermark_column: id\nmerge_strategy: append_only",
    ),
    Mistake("pipeline.sql:1: there is no filter 'uper', did you mean 'upper'?", sql="select '{{ name | uper }}' as n"),
    Mistake("pipeline.sql:1: a macro calls itself without end", sql="{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
)

SQL = (
    Mistake(
        "pipeline.sql:1:1: syntax error at or near \"selct\", did you mean 'select' instead of 'selct'?", sql="selct 1"
    ),
    Mistake(
        "pipeline.sql:2:6: syntax error at or near \"source\", did you mean 'from' instead of 'form'?",
        sql="select *\nform source",
    ),
    Mistake("pipeline.sql:1:18: syntax error at end of input", sql="select (1 + 2 * 3"),
    Mistake('pipeline.sql:1:8: unterminated quoted string at or near "\'a"', sql="select 'a"),
    Mistake(
        'pipeline.sql:1:32: syntax error at or near "-": a name with "-" needs double quotes',
        sql="select * from default.bronze.my-table",
    ),
    Mistake(
        "pipeline.sql:2:1: DELETE is no query: a file of SQL is one SELECT, and the rows that it gives are what counts",
        sql="with x as (select 1 as id)\ndelete from x",
    ),
    Mistake(
        "pipeline.sql:1:1: a PIVOT needs to say its columns here: `pivot t on kind in ('a', 'b') using sum(n)`",
        sql="pivot bronze.source on name using sum(amount)",
    ),
    Mistake(
        "pipeline.sql: a name has too many parts: tables are named namespace.layer.table",
        sql="select * from a.b.c.d",
    ),
    Mistake(
        'pipeline.sql:1:20: syntax error at or near ".": a name with "-" needs double quotes',
        sql='select sales-2026q1.id from default.bronze."sales-2026q1"',
    ),
    Mistake("pipeline.sql:2:1: expected one query, and here begins another", sql="select 1 as id;\nselect 2 as id"),
    Mistake(
        "pipeline.sql:1:1: DROP is no query: a file of SQL is one SELECT, and the rows that it gives are what counts",
        sql="drop table x",
    ),
    Mistake("pipeline.sql: there is no query in the file", sql="-- nothing yet"),
    Mistake(
        "pipeline.sql:1:15: there is no table 'orders' in the query: tables of the platform are named layer.table,"
        " as {{ ref('bronze.orders') }}",
        sql="select * from orders",
    ),
    Mistake(
        "pipeline.sql:2:15: there is no table 'ordrs' in the query, did you mean 'orders'?",
        sql="with orders as (select 1 as id)\nselect * from ordrs",
    ),
    Mistake(
        "pipeline.sql:1:15: there is no table 'sliver.orders': 'sliver' is no layer, did you mean 'silver'?",
        sql="select * from sliver.orders",
    ),
    Mistake(
        "pipeline.sql:1:8: landing_zone('orders') stands where neither a table nor the files of a reader can:"
        " write `from {{ landing_zone(…) }}` or `read_csv({{ landing_zone(…) }}, …)`",
        sql="select {{ landing_zone('orders') }}",
    ),
    Mistake(
        "pipeline.sql:2:17: landing_zone('orders') stands where neither a table nor the files of a reader can:"
        " write `from {{ landing_zone(…) }}` or `read_csv({{ landing_zone(…) }}, …)`",
        sql="select *\nfrom   read_csv('{{ landing_zone('orders') }}/*.csv')",
    ),
    Mistake(
        "tests/quality/t.sql:2:1: syntax error at or near \"wehre\", did you mean 'where' instead of 'wehre'?",
        test="select * from {{ this }} as t\nwehre id is null",
    ),
    Mistake(
        'pipeline.sql:2:17: syntax error at or near "id"',
        sql="{% if is_incremental() %}select 1 as id\nfrom this group id{% else %}select 1 as id{% endif %}",
        config="merge_strategy: append_only",
    ),
)


PYTHON = tuple(
    Mistake(told, sql="", files={"pipeline.py": text})
    for told, text in (
        ("pipeline.py:2:19: '(' was never closed", "def pipeline(ctx):\n    return ctx.ref('bronze.x'"),
        (
            "pipeline.py: there is neither a function `pipeline(ctx)` nor anything assigned to `result`",
            "def run(ctx):\n    return None\n",
        ),
        (
            "pipeline.py:1:1: `pipeline` takes one argument, the run's context: `def pipeline(ctx):`",
            "def pipeline():\n    return None\n",
        ),
        (
            "pipeline.py:2:12: 'orders' is no table: write 'layer.name', as 'bronze.orders', or all three parts",
            "def pipeline(ctx):\n    return ctx.ref('orders')\n",
        ),
        (
            "pipeline.py:1: unknown merge_strategy 'apend_only', did you mean 'append_only'?",
            "# @merge_strategy: apend_only\ndef pipeline(ctx):\n    return None\n",
        ),
    )
)


@of(*SETTINGS, *JINJA, *SQL, *PYTHON)
def test_a_mistake_is_told_when_the_pipeline_is_published(
    mistake: Mistake, database: duckdb.DuckDBPyConnection
) -> None:
    found = validate(database, str(MINE), mistake.all_files)

    told = [
        ":".join(str(part) for part in (file.path, error.line, error.column) if part is not None) + f": {error.message}"
        for file in found.files
        for error in file.errors
    ]
    assert told == [mistake.told]


# Found by a run, when DuckDB meets the tables and files

RUN = (
    Mistake('pipeline.sql:1:8: there is no column "id", as the query has no FROM', sql="select id"),
    Mistake(
        'pipeline.sql:1:8: there is no column "amonut", did you mean "amount"?',
        sql="select amonut from {{ ref('bronze.source') }}",
    ),
    Mistake(
        'pipeline.sql:1:8: there is no column "total"; there is "amount"',
        sql="select total from {{ ref('bronze.source') }}",
    ),
    Mistake(
        'pipeline.sql:1:8: "s" has no column "nmae", did you mean "name"?', sql="select s.nmae from bronze.source s"
    ),
    Mistake(
        'pipeline.sql:2:8: there is no table "sorce" in this FROM clause, did you mean "source"?',
        sql="-- sums\nselect sorce.id from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:8: there is no function "summ", did you mean "sum"?',
        sql="select summ(id) as s from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:22: there is no function "read_cvs", did you mean "read_csv"?',
        sql="select count(*) from read_cvs('x.csv')",
    ),
    Mistake(
        'pipeline.sql:1:12: there is no type "bigintt", did you mean "bigint"?',
        sql="select id::bigintt as id from bronze.source",
    ),
    Mistake(
        "pipeline.sql:1:8: substr does not take the types (INTEGER, INTEGER_LITERAL)"
        " (it takes substr(VARCHAR, BIGINT, BIGINT) -> VARCHAR; substr(VARCHAR, BIGINT) -> VARCHAR):"
        " cast a value, as value::VARCHAR",
        sql="select substr(id, 1) as s from bronze.source",
    ),
    Mistake(
        "pipeline.sql:1:11: + does not take the types (INTEGER, VARCHAR): cast a value, as value::VARCHAR",
        sql="select id + name as s from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:8: column "id" must appear in the GROUP BY clause or must be part of an aggregate function.\n'
        'Either add it to the GROUP BY list, or use "ANY_VALUE(id)" if the exact value of "id" is not important.',
        sql="select id, sum(amount) as total from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:8: Ambiguous reference to column name "id" (use: "a.id" or "b.id")',
        sql="select id from bronze.source a join bronze.source b on a.id = b.id",
    ),
    Mistake(
        "pipeline.sql:1:8: Could not convert string 'x' to INT32 when casting from source column name",
        sql="select cast(name as integer) as n from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:39: there is no column "mising"; there is "amount", "id"',
        sql="select '{{ run_started_at }}' as at_, mising from bronze.source",
    ),
    Mistake(
        "pipeline.sql:1:8: round takes 1 or 2 arguments, not 3",
        sql="select round(amount, 2, 3) as r from bronze.source",
    ),
    Mistake(
        "pipeline.sql:1:8: lower takes 1 argument, not 0 (it takes lower(VARCHAR) -> VARCHAR)",
        sql="select lower() as l",
    ),
    Mistake(
        "pipeline.sql:1:8: sum does not take the types (VARCHAR): cast a value, as value::DOUBLE",
        sql="select sum(name) as s from bronze.source",
    ),
    Mistake(
        "pipeline.sql:1:11: + does not take the types (INTEGER, STRING_LITERAL) (it takes +(INTEGER, DATE) -> DATE;"
        " +(INTEGER, INTEGER) -> INTEGER): cast a value, as value::VARCHAR",
        sql="select id + 'a' as x from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:45: there is no column "b"; there is "amount";'
        " a text stands between single quotes, as 'text'",
        sql='select id from bronze.source s where name = "b"',
    ),
    Mistake(
        'pipeline.sql:1:11: a name stands between double quotes, as "name", not between backticks',
        sql="select `id` from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:57: column "ids" must appear in the GROUP BY clause or be used in an aggregate function',
        sql="select id as num from bronze.source group by id having (ids > 1)",
    ),
    Mistake(
        'pipeline.sql:1:19: extract specifier "mont" not recognized',
        sql="select date_trunc('mont', day) as m from bronze.source",
    ),
    Mistake(
        'pipeline.sql:1:10: the struct has no field "b"; there is "a"',
        sql="select s.b from (select {'a': 1} as s) as t",
    ),
    Mistake(
        "pipeline.sql: More than one row returned by a subquery used as an expression: it must give one row at most",
        sql="select (select unnest([1, 2])) as x",
    ),
    Mistake(
        'pipeline.sql:1:15: read_csv has no parameter "heder", did you mean "header"?',
        sql="select * from read_csv({{ landing_zone('z') }}, heder = true)",
    ),
)


@of(*RUN)
def test_a_mistake_is_told_when_the_query_is_run(mistake: Mistake, database: duckdb.DuckDBPyConnection) -> None:
    facts = Facts(UUID(int=7), datetime(2026, 1, 2, tzinfo=UTC), MINE, "full_refresh", lambda: False)
    compiled = compile_pipeline(database, mistake.all_files, lambda _: facts)
    zone = ZoneContent([ClaimedFile(file_id=UUID(int=1), filename="a.csv", key="a.csv", version_id="v", size_bytes=1)])
    statement = compiled.code
    assert isinstance(statement, Statement)
    zones = {use.call.placeholder: zone for use in statement.zones}
    bound = bind(statement, {Qualified("default", "bronze", "source"): "source"}, zones, "rat")

    with pytest.raises(WorkFailed) as failed:
        _run(database, bound)

    assert str(failed.value) == mistake.told


def _run(database: duckdb.DuckDBPyConnection, bound: Bound) -> None:
    """What writing does with a query: it looks at its columns first."""
    with errors_of(bound, "describe (\n"):
        database.execute(f"describe (\n{bound.sql}\n)")
    with errors_of(bound):
        database.execute(bound.sql).fetchall()
