"""What authors write is read as `pipelines.md` says, and what is wrong with it is told by line."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import duckdb
import pytest

from contracts.landing import ClaimedFile, ZoneForm
from contracts.names import Qualified
from contracts.reports import Severity
from services.runner.compile import Compiled, compile_pipeline
from services.runner.config import Config, Strategy, plugin_of, read_config, read_test_header
from services.runner.engine.binding import ZoneContent, bind, escaped
from services.runner.engine.statement import Statement, parse
from services.runner.problems import AuthorError
from services.runner.template import Facts, Rendered, render
from services.runner.validate import validate

ORDERS, MINE = Qualified("default", "silver", "orders"), Qualified("default", "bronze", "mine")
RELATIONS = {ORDERS: "iceberg_scan('s3://orders')", MINE: "iceberg_scan('s3://mine')"}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def facts(strategy: Strategy = Strategy.FULL_REFRESH, **parameters: Any) -> Facts:
    return Facts(
        run_id=UUID(int=7),
        run_started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        pipeline=MINE,
        strategy=strategy,
        is_incremental=lambda: plugin_of(strategy).is_incremental,
        parameters=parameters,
    )


def rendered(template: str, **parameters: Any) -> Rendered:
    return render("pipeline.sql", template, facts(**parameters))


def parsed(connection: duckdb.DuckDBPyConnection, template: str) -> Statement:
    return parse(connection, rendered(template))


def file(name: str) -> ClaimedFile:
    return ClaimedFile(
        file_id=UUID(int=1), filename=name, key=f"default/landing/z/{name}", version_id="v", size_bytes=1
    )


def bound(connection: duckdb.DuckDBPyConnection, template: str, *names: str, **content: Any) -> str:
    statement = parsed(connection, template)
    zone = ZoneContent([file(name) for name in names], **content)
    return bind(statement, RELATIONS, {use.call.placeholder: zone for use in statement.zones}, "rat").sql


def problems(error: pytest.ExceptionInfo[AuthorError]) -> list[str]:
    return [str(problem) for problem in error.value.problems]


# Settings


def test_settings_come_from_the_file_and_annotations_win_key_by_key() -> None:
    files = {
        "config.yaml": "Merge_Strategy: append_only\nmax_retries: 0\ntags: [a, b]\nmemory_limit: 2GiB\n",
        "pipeline.sql": "-- a\n-- @MERGE_STRATEGY: full_refresh\n\n-- @timeout_seconds: 1.5\nselect 1\n-- @tags: c",
    }

    config, wrong = read_config(files, "pipeline.sql")

    assert wrong == []
    assert config == Config(
        merge_strategy=Strategy.FULL_REFRESH,
        max_retries=0,
        timeout_seconds=1.5,
        memory_limit=2 * 1024**3,
        tags=("a", "b"),
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"config.yaml": "\n\nmerge_strategy: appnd_only"},
            "config.yaml:3: unknown merge_strategy 'appnd_only', did you mean 'append_only'?",
        ),
        (
            {"config.yaml": "retry_delay: 3"},
            "config.yaml:1: unknown key 'retry_delay', did you mean 'retry_delay_seconds'?",
        ),
        ({"config.yaml": "max_retries: -1"}, "config.yaml:1: max_retries is a whole number, 0 or more, not '-1'"),
        ({"config.yaml": "max_retries: true"}, "config.yaml:1: max_retries is a whole number, 0 or more, not 'true'"),
        ({"config.yaml": "timeout_seconds: 0"}, "config.yaml:1: timeout_seconds must be more than 0 seconds"),
        ({"config.yaml": "memory_limit: lots"}, "config.yaml:1: memory_limit is a size as 512MB or 2GiB, not 'lots'"),
        ({"config.yaml": "archive_landing_zones: 1"}, "config.yaml:1: archive_landing_zones is true or false, not '1'"),
        ({"config.yaml": "tags: a\ntags: b"}, "config.yaml:2: tags is set twice"),
        ({"config.yaml": "- a"}, "config.yaml:1: expected keys and values, as `merge_strategy: append_only`"),
        ({"config.yaml": "a: [\nb: c"}, "config.yaml:2: no valid YAML"),
        ({"pipeline.sql": "\n-- @strategy: x\nselect 1"}, "pipeline.sql:2: unknown key 'strategy'"),
    ],
)
def test_a_wrong_setting_is_told_by_file_and_line(files: Mapping[str, str], told: str) -> None:
    _, wrong = read_config(files, "pipeline.sql")

    assert len(wrong) == 1
    assert str(wrong[0]).startswith(told)


def test_annotations_are_comments_of_the_files_own_language() -> None:
    python, _ = read_config({"pipeline.py": "# @tags: a\n-- @tags: b\n"}, "pipeline.py")
    sql, _ = read_config({"pipeline.sql": "# @tags: a\n-- @tags: b\n"}, "pipeline.sql")

    assert (python.tags, sql.tags) == (("a",), ())


def test_settings_that_are_left_out_are_as_the_documentation_says() -> None:
    config, wrong = read_config({}, "pipeline.sql")

    assert wrong == []
    assert (config.materialized, config.merge_strategy, config.on_schema_change) == ("table", "full_refresh", "evolve")
    assert (config.max_retries, config.retry_delay_seconds, config.timeout_seconds) == (2, 5, 3600)
    assert (config.scd_valid_from, config.scd_valid_to) == ("valid_from", "valid_to")
    assert (config.close_missing, config.archive_landing_zones, config.memory_limit) == (False, False, None)


def test_a_text_in_yaml_stays_as_it_is_written() -> None:
    text = "merge_strategy: incremental\nunique_key: [id, on, 2026-01-01]\ndescription: 2026-02-30\nclose_missing: yes"

    config, wrong = read_config({"config.yaml": text}, "pipeline.sql")

    assert wrong == []
    assert (config.unique_key, config.description) == (("id", "on", "2026-01-01"), "2026-02-30")
    assert config.close_missing


def test_partitions_are_columns_and_transforms_of_iceberg() -> None:
    text = 'day(ts), Bucket(16, id), country, truncate(4, "a b")'

    config, wrong = read_config({"config.yaml": f"partition_by: '{text}'"}, "pipeline.sql")
    as_list, _ = read_config({"config.yaml": "partition_by: [month(ts), id]"}, "pipeline.sql")

    assert wrong == []
    assert [(one.column, one.transform) for one in config.partition_by] == [
        ("ts", "day"),
        ("id", "bucket[16]"),
        ("country", "identity"),
        ("a b", "truncate[4]"),
    ]
    assert [(one.column, one.transform) for one in as_list.partition_by] == [("ts", "month"), ("id", "identity")]


def test_the_header_of_a_test_says_how_it_judges() -> None:
    header, wrong = read_test_header(
        "t.sql", "-- @severity: Warn\n-- @description: all: fine\n-- @tags: a, b\nselect 1"
    )
    _, unknown = read_test_header("t.sql", "-- @severity: fatal\nselect 1")

    assert wrong == []
    assert (header.severity, header.description, header.tags) == (Severity.WARN, "all: fine", ("a", "b"))
    assert [str(one) for one in unknown] == ["t.sql:1: unknown severity 'fatal', expected one of error, warn"]


# Jinja


@pytest.mark.parametrize(
    ("template", "sql"),
    [
        ("{{ ref('silver.orders') }}", '"default"."silver"."orders"'),
        ("{{ ref('other.gold.x') }}", '"other"."gold"."x"'),
        ("{{ this }}", '"default"."bronze"."mine"'),
        ("ts < '{{ run_started_at }}'", "ts < '2026-01-02 03:04:05+00:00'::timestamptz"),
        ("ts < {{ run_started_at }}", "ts < '2026-01-02 03:04:05+00:00'::timestamptz"),
        ("{{ run_started_at.date() }}", "'2026-01-02'::date"),
        ("timestamp '{{ run_started_at }}'", "timestamp '2026-01-02 03:04:05+00:00'::timestamptz"),
        ("'{{ run_id }}'", "'00000000-0000-0000-0000-000000000007'"),
        ("'{{ namespace }}-{{ layer }}-{{ name }}'", "'default-bronze-mine'"),
        ("'{{ var('a') }}', {{ var('b', 3) }}, {{ var('c', none) }}", "'x', 3, null"),
        ("{% if is_append_only() %}a{% else %}b{% endif %}", "b"),
        ("{% if is_incremental() %}a{% else %}b{% endif %}", "b"),
        ("{% if is_incremental or is_scd2 %}a{% else %}b{% endif %}{{ is_snapshot }}", "bfalse"),
        ("a{# gone #}b\r\n", "ab\n"),
    ],
)
def test_a_name_gives_what_it_stands_for_and_takes_the_place_of_its_quotes(template: str, sql: str) -> None:
    assert rendered(template, a="x").sql == sql


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_template_can_ask_for_the_strategy(strategy: Strategy) -> None:
    names = ("is_append_only", "is_delete_insert", "is_scd2", "is_snapshot")
    template = " ".join(f"{{% if {name}() %}}{name}{{% endif %}}" for name in names)

    sql = render("pipeline.sql", template, replace(facts(), strategy=strategy)).sql

    assert sql.split() == [name for name in names if name == f"is_{strategy}"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("select 1,\n {{ watermark }}", "pipeline.sql:2:5: 'watermark' is undefined, did you mean 'watermark_value'?"),
        ("\n{% if %}", "pipeline.sql:2: Expected an expression"),
        (
            "{{ ref('orders') }}",
            "pipeline.sql:1: 'orders' is no table: write 'layer.name', as 'bronze.orders', or all three",
        ),
        ("\n\n{{ var('x') }}", "pipeline.sql:3: the run has no parameter 'x'"),
        ("{{ landing_zone('x', only='old') }}", "pipeline.sql:1: landing_zone() takes only='new', not only='old'"),
        ("{{ landing_zone('../x') }}", "pipeline.sql:1: '../x' is not the name of a landing zone"),
        ("{{ ''.__class__.__mro__ }}", "pipeline.sql:1: access to attribute '__class__' of 'str' object is unsafe."),
        ("a\n{{ 1 / 0 }}", "pipeline.sql:2: division by zero"),
    ],
)
def test_what_does_not_render_is_told_by_line(template: str, told: str) -> None:
    with pytest.raises(AuthorError) as error:
        rendered(template)

    assert problems(error)[0].startswith(told)


def test_a_watermark_that_there_is_none_of_is_none() -> None:
    template = (
        "{% if watermark_value %}a{% endif %}{% if watermark_value != none %}b{% endif %}"
        "{% if watermark_value is not none %}c{% endif %}{% if watermark_value is defined %}d{% endif %}"
        "{% if watermark_value == none %}e{% endif %}{{ watermark_value or 'f' }}{{ watermark_value | default('g') }}"
    )

    assert rendered(template).sql == "efg"


def test_every_place_of_the_sql_is_found_in_the_template() -> None:
    template = (
        "-- {{ run_id }}\n{% for i in [1, 2] -%}\nselect '{{ run_started_at }}' as a, {{ i }} as b, here{{ i }}\n"
        "{% if not loop.last %} union all {% endif -%}\n{% endfor %}\nwhere ü = '{{ var('p') }}' and there"
    )
    text = rendered(template, p="long value")

    def place(word: str) -> str:
        return str(text.problem("", text.sql.index(word))).removesuffix(": ")

    assert place("here1") == place("here2") == "pipeline.sql:3:51"
    assert place("there") == "pipeline.sql:6:32"
    assert place("timestamptz") == "pipeline.sql:3:9"


# Tables and files in the query


@pytest.mark.parametrize(
    ("template", "sql"),
    [
        ("from default.silver.orders;", "from iceberg_scan('s3://orders') as \"orders\" "),
        ('from "Default".SILVER.orders o', "from iceberg_scan('s3://orders') o"),
        ("from silver.orders join bronze.mine using (id)", None),
        ("select default.silver.orders.id from {{ ref('silver.orders') }}", None),
        ("from {{ ref('silver.orders') }} tablesample 10%", None),
        ("with silver as (select 1) from silver, 'x.csv', information_schema.tables", None),
        ("with recursive t as (select 1 union all from silver.orders, t) from t where 'silver.orders' = x", None),
        ("from (pivot silver.orders on k in ('x') using sum(v))", None),
    ],
)
def test_tables_are_read_where_the_query_names_them(
    connection: duckdb.DuckDBPyConnection, template: str, sql: str | None
) -> None:
    found = bound(connection, template)

    assert sql is None or found == sql
    assert "silver.orders'" in found or "silver.orders" not in found
    answer = connection.execute("select json_serialize_sql(?::varchar)", [found]).fetchone()
    assert answer is not None
    assert '"error":false' in answer[0]


def test_a_query_is_as_deep_as_duckdb_lets_it_be(connection: duckdb.DuckDBPyConnection) -> None:
    sums = " + ".join(f"{number}" for number in range(900))

    statement = parsed(connection, f"select {sums} as total from {{{{ ref('silver.orders') }}}}")

    assert statement.tables_named == [ORDERS]
    with pytest.raises(AuthorError, match="expression depth"):
        parsed(connection, f"select {sums} + {sums} as total")


def test_a_table_in_a_comment_is_none(connection: duckdb.DuckDBPyConnection) -> None:
    statement = parsed(connection, "select 1 -- {{ ref('silver.orders') }}\n/* {{ landing_zone('z') }} */")

    assert (statement.tables_named, statement.zones_asked) == ([], [])


def test_a_missing_table_is_told_where_it_is_named(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(AuthorError) as error:
        bound(connection, "select 'ü',\n  1 from default.gold.nothing")

    assert problems(error) == ["pipeline.sql:2:10: there is no table 'default.gold.nothing'"]


@pytest.mark.parametrize(
    ("template", "sql"),
    [
        ("from {{ landing_zone('z') }}", 'from read_csv([FILES]) as "z"'),
        ("from '{{ landing_zone(\"z\") }}' q", "from read_csv([FILES]) q"),
        ("from read_csv({{ landing_zone('z') }}, names = ['a)('])", "from read_csv([FILES], names = ['a)('])"),
        ("from read_csv_auto('{{ landing_zone(\"z\") }}')", "from read_csv_auto([FILES])"),
    ],
)
def test_files_stand_in_the_place_of_a_zone(connection: duckdb.DuckDBPyConnection, template: str, sql: str) -> None:
    files = "'s3://rat/default/landing/z/a.csv', 's3://rat/default/landing/z/b[[]1]''s.CSV.gz'"

    assert bound(connection, template, "a.csv", "b[1]'s.CSV.gz") == sql.replace("FILES", files)


@pytest.mark.parametrize(
    ("name", "reader"), [("a.parquet", "read_parquet"), ("a.jsonl", "read_json"), ("a.tsv", "read_csv")]
)
def test_the_reader_is_chosen_by_the_ending(connection: duckdb.DuckDBPyConnection, name: str, reader: str) -> None:
    assert f"from {reader}([" in bound(connection, "from {{ landing_zone('z') }}", name)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.csv", "b.json"), "'a.csv' and 'b.json' need different readers"),
        (("a.xlsx",), "no reader for 'a.xlsx' by its ending"),
        ((), "landing zone default/z is empty, and neither an expected_schema nor an earlier file tells its columns"),
    ],
)
def test_a_zone_that_cannot_be_read_as_it_stands_is_told(
    connection: duckdb.DuckDBPyConnection, names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(AuthorError) as error:
        bound(connection, "select *\nfrom {{ landing_zone('z') }}", *names)

    assert problems(error)[0].startswith(f"pipeline.sql:2:6: {told}")


def test_an_empty_zone_has_the_columns_of_its_schema_or_of_its_last_file(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    reader = "from read_csv({{ landing_zone('z') }}, header = true) where true"

    by_schema = bound(connection, reader, expected_schema='id bigint not null, "a b" varchar')
    by_file = bound(connection, reader, last_file=file("a.csv"))
    relation = bound(connection, "from {{ landing_zone('z') }}", last_file=file("a.csv"))

    assert (
        by_schema == 'from (select null::BIGINT as "id", null::VARCHAR as "a b" where false) as "read_csv" where true'
    )
    last = "['s3://rat/default/landing/z/a.csv']"
    assert by_file == f'from (select * from read_csv({last}, header = true) where false) as "read_csv" where true'
    assert relation == f'from (select * from read_csv({last}) where false) as "z"'


def test_a_zone_in_both_forms_is_asked_for_twice(connection: duckdb.DuckDBPyConnection) -> None:
    zones = "from {{ landing_zone('z') }} a, {{ landing_zone('z', only='new') }} b, {{ landing_zone('o/z') }} c"
    statement = parsed(connection, zones + ", {{ landing_zone('z') }} d")

    asked = [(call.namespace, call.zone, call.form) for call in statement.zones_asked]
    assert asked == [("default", "z", ZoneForm.ALL), ("default", "z", ZoneForm.NEW), ("o", "z", ZoneForm.ALL)]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("select 1\nfrom x y z", "pipeline.sql:2:10: syntax error"),
        ("select * from default.bronze.my-table", 'pipeline.sql:1:32: syntax error at or near "-": a name with "-"'),
        ("select 1; select 2", "pipeline.sql:1:11: expected one query, and here begins another"),
        ("drop table x", "pipeline.sql:1:1: DROP is no query"),
        ("copy (select 1) to 'x'", "pipeline.sql:1:1: COPY is no query"),
        ("-- nothing", "pipeline.sql: there is no query in the file"),
        ("select '{{ landing_zone('z') }}/*.csv'", "pipeline.sql:1:8: landing_zone('z') stands where neither"),
        ("select {{ landing_zone('z') }}", "pipeline.sql:1:8: landing_zone('z') stands where neither"),
    ],
)
def test_what_is_not_one_query_is_told_by_line(connection: duckdb.DuckDBPyConnection, template: str, told: str) -> None:
    with pytest.raises(AuthorError) as error:
        parsed(connection, template)

    assert problems(error)[0].startswith(told)


def test_a_place_in_what_runs_is_told_in_what_was_written(connection: duckdb.DuckDBPyConnection) -> None:
    template = "select 'ü', missing\nfrom default.silver.orders, {{ landing_zone('z') }} where also"
    statement = parsed(connection, template)
    zone = {use.call.placeholder: ZoneContent([file("a.csv")]) for use in statement.zones}
    runs = bind(statement, RELATIONS, zone, "rat")

    def place(word: str) -> str:
        return str(runs.problem("", runs.sql.encode().index(word.encode()))).removesuffix(": ")

    assert place("missing") == "pipeline.sql:1:13"
    assert place("iceberg_scan") == place("s3://orders") == "pipeline.sql:2:6"
    assert place("also") == "pipeline.sql:2:59"


def test_names_are_escaped_for_patterns() -> None:
    assert escaped("a[1]*.csv") == "a[[]1][*].csv"


# All files


def compiled(connection: duckdb.DuckDBPyConnection, files: Mapping[str, str]) -> Compiled:
    return compile_pipeline(connection, files, lambda config: facts(Strategy(config.merge_strategy)))


def test_a_pipeline_is_its_settings_its_query_and_its_tests(connection: duckdb.DuckDBPyConnection) -> None:
    files = {
        "pipeline.sql": "-- @merge_strategy: append_only\nselect {% if is_append_only() %}1{% endif %} as id",
        "tests/quality/b.sql": "-- @severity: warn\nfrom {{ this }}",
        "tests/quality/a.sql": "from {{ nothing }}",
        "README.md": "hello",
    }

    pipeline = compiled(connection, files)

    assert pipeline.config.merge_strategy == Strategy.APPEND_ONLY
    assert isinstance(pipeline.code, Statement)
    assert "1 as id" in pipeline.code.sql
    assert [(test.name, test.header.severity) for test in pipeline.tests] == [
        ("a", Severity.ERROR),
        ("b", Severity.WARN),
    ]
    assert str(pipeline.tests[0].problems[0]) == "tests/quality/a.sql:1:9: 'nothing' is undefined"
    assert pipeline.tests[1].statement is not None


def test_a_pipeline_without_a_query_is_none(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(AuthorError, match=r"pipeline\.sql: the pipeline has neither pipeline\.sql nor"):
        compiled(connection, {"config.yaml": ""})


def test_publishing_hears_of_every_problem_of_every_file(connection: duckdb.DuckDBPyConnection) -> None:
    found = validate(
        connection,
        "default.bronze.mine",
        {
            "pipeline.sql": "-- @description: all orders\nselect *\nfrm {{ landing_zone('z', only='new') }}",
            "config.yaml": "unknown: 1\nmax_retries: x",
            "tests/quality/t.sql": "from {{ x }}",
            "notes.txt": "",
        },
    )

    errors = {checked.path: [problem.line for problem in checked.errors] for checked in found.files}
    assert not found.valid
    assert errors == {"config.yaml": [1, 2], "notes.txt": [], "pipeline.sql": [3], "tests/quality/t.sql": [1]}
    assert found.description == "all orders"


def test_publishing_reads_what_only_a_later_run_reads(connection: duckdb.DuckDBPyConnection) -> None:
    sql = (
        "-- @merge_strategy: append_only\n-- @watermark_column: ts\nselect ts from {{ ref('silver.orders') }}\n"
        "{% if is_incremental() %} join {{ ref('silver.lines') }} using (ts)"
        " where ts > '{{ watermark_value }}'{% endif %} -- {{ ref('gold.in_a_comment') }}\n{# {{ ref('gold.gone') }} #}"
    )

    found = validate(connection, "default.bronze.mine", {"pipeline.sql": sql})

    assert found.valid
    assert found.reads_tables == ["default.silver.orders", "default.silver.lines"]
    assert [(one.name, one.line, one.column) for one in found.references] == [
        ("default.silver.orders", 3, 16),
        ("default.silver.lines", 4, 32),
    ]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "select 1 as id\n-- @merge_strategy: append_only",
            (
                2,
                "@merge_strategy counts for nothing here:"
                " annotations stand above the first line of code, each behind --",
            ),
        ),
        ("select {{ var('n') }} as n", (None, "var('n') has no default: a run without this parameter fails")),
        (
            "select 1 as id {% if watermark_value %} where false {% endif %}",
            (None, "watermark_value is always false here: the pipeline sets no watermark_column"),
        ),
    ],
)
def test_what_is_no_error_but_odd_is_warned_of(
    connection: duckdb.DuckDBPyConnection, sql: str, told: tuple[int | None, str]
) -> None:
    found = validate(connection, "default.bronze.mine", {"pipeline.sql": sql})

    assert found.valid
    assert [(one.line, one.message) for one in found.files[0].warnings] == [told]


def test_annotations_of_another_kind_and_files_of_another_name_are_warned_of(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    found = validate(
        connection,
        "default.bronze.mine",
        {"pipeline.py": '"""@Merge_Strategy: append_only"""\nresult = 1', "config.yml": "merge_strategy: append_only"},
    )
    [block] = validate(connection, "default.bronze.mine", {"pipeline.sql": "/* @tags: a */ select 1 as id"}).files

    [config, code] = found.files
    assert config.warnings[0].message == "no run reads this file, did you mean 'config.yaml'?"
    assert (code.warnings[0].message, code.warnings[0].line) == (
        "@Merge_Strategy counts for nothing here: annotations stand above the first line of code, each behind #",
        1,
    )
    assert block.warnings[0].message.startswith("@tags counts for nothing here")


@pytest.mark.parametrize(
    "sql",
    [
        "select max(columns('id|day')) as 'max_\\0' from bronze.x",
        "select unnest(pair) as max_of from bronze.x",
        "select x.* from bronze.x",
        "select 1 as id union all by name select 2 as max_id",
        "pivot bronze.x on kind in ('max') using sum(n)",
    ],
)
def test_columns_that_only_a_run_knows_hinder_no_publication(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    config = "merge_strategy: incremental\nunique_key: max_id"

    assert validate(connection, "default.bronze.mine", {"pipeline.sql": sql, "config.yaml": config}).valid


@pytest.mark.parametrize(
    "sql",
    [
        "select {{ var('n') + 1 }} as n {% if var('m') > 3 %} where x {% endif %}",
        "select {{ var('n') | int }} as n, '{{ var('day') }}' as day {% for x in var('list') %}, {{ x }}{% endfor %}",
        "select * from {{ var('table') }}",
    ],
)
def test_parameters_that_only_a_run_has_hinder_no_publication(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert validate(connection, "default.bronze.mine", {"pipeline.sql": sql}).valid


def test_archiving_under_full_refresh_is_warned_of_where_it_is_asked_for(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    files = {"pipeline.sql": "from {{ landing_zone('z') }}", "config.yaml": "tags: a\narchive_landing_zones: true"}

    found = validate(connection, "default.bronze.mine", files)

    [config, _] = found.files
    assert found.archives_files
    assert [(one.line, one.message) for one in config.warnings] == [
        (
            2,
            "full_refresh keeps the last batch only: archive_landing_zones takes files out of the zone once they are"
            " read; use append_only to keep what was read before",
        )
    ]


def test_a_table_that_would_hold_the_last_batch_only_is_warned_of(connection: duckdb.DuckDBPyConnection) -> None:
    files = {"pipeline.sql": "from {{ landing_zone('z', only='new') }}, {{ ref('silver.orders') }}, {{ this }}"}

    found = validate(connection, "default.bronze.mine", files)

    assert found.valid
    assert "full_refresh keeps the last batch only" in found.files[0].warnings[0].message
    assert found.reads_tables == ["default.silver.orders"]
    assert [(zone.namespace, zone.zone, zone.only_new) for zone in found.reads_zones] == [("default", "z", True)]
