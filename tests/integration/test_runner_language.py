"""What an author may write in SQL, run by the runner over the real servers; the test is catalog and ingest."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.names import Qualified
from contracts.runs import CheckAttempt, ErrorKind, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.running import RunOf, Surroundings, surroundings, table_name


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(update={"runner_workers": 2})


@pytest.fixture(scope="module")
async def around(settings: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(settings) as around, serve(settings):
        yield around


async def error_of(around: Surroundings, sql: str, config: str | None = None, **facts: object) -> str:
    """How a run of this pipeline fails."""
    run = await around.request(sql, config=config, **facts)
    return (await around.finished(run)).error or ""


# Jinja


async def test_a_watermark_lets_a_run_read_what_is_newer(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    config = "merge_strategy: append_only\nwatermark_column: TS"
    guarded = """
        select * from (values (timestamp '2026-01-01', 1), (timestamp '2026-01-02', 2), ('2026-01-03', 3)) as t(ts, id)
        {% if watermark_value %} where ts > '{{ watermark_value }}' {% else %} where id < 3 {% endif %}
    """

    async def run(sql: str) -> RunOf:
        one = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        await around.finished(one)
        return one

    unguarded = await run("select timestamp '2026-01-01' as ts where true > '{{ watermark_value }}'")
    first, second, third = [await run(guarded) for _ in range(3)]

    assert unguarded.ended is not None
    assert unguarded.ended.error is not None
    assert unguarded.ended.error.startswith("pipeline.sql:1: there is no watermark_value: ")
    assert [one.ended and one.ended.error for one in (first, second, third)] == [None, None, None]
    assert [one.ended and one.ended.rows_written for one in (first, second, third)] == [2, 1, 0]
    assert await around.rows(name, "select id from t order by id") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("7", "INTEGER"),
        ("-1.5::decimal(9, 2)", "DECIMAL(9,2)"),
        ("date '2026-02-03'", "DATE"),
        ("timestamptz '2026-02-03 04:05:06.789+00'", "TIMESTAMP WITH TIME ZONE"),
        ("'it''s'", "VARCHAR"),
        ("1e300::double", "DOUBLE"),
    ],
)
async def test_a_watermark_is_a_literal_of_the_columns_type(around: Surroundings, value: str, kind: str) -> None:
    name, pipeline_id = table_name(), uuid4()
    sql = f"""
        {{% if watermark_value %}}
        select {{{{ watermark_value }}}} as mark, typeof('{{{{ watermark_value }}}}') as kind,
          '{{{{ watermark_value }}}}' = {value} as is_same
        {{% else %}}
        select {value} as mark, null::varchar as kind, null::boolean as is_same
        {{% endif %}}
    """
    config = "merge_strategy: append_only\nwatermark_column: mark"

    for _ in range(2):
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        assert (await around.finished(run)).error is None

    assert await around.rows(name, "select kind, is_same from t where kind is not null") == [(kind, True)]


async def test_a_watermark_column_that_the_table_does_not_have_is_told(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    await around.finished(await around.request("select 1 as updated", pipeline=name, pipeline_id=pipeline_id))

    run = await around.request(
        "select 2 as updated {% if watermark_value %} where false {% endif %}",
        pipeline=name,
        pipeline_id=pipeline_id,
        config="merge_strategy: append_only\nwatermark_column: update",
    )

    assert (await around.finished(run)).error == (
        "config.yaml:2: the table has no column 'update', which watermark_column names, did you mean 'updated'?"
    )


async def test_is_incremental_is_true_when_rows_are_kept_and_there_are_some(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    sql = "select {{ is_incremental() }} as is_incremental"
    found = []

    for strategy in ("append_only", "append_only", "full_refresh"):
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=f"merge_strategy: {strategy}")
        assert (await around.finished(run)).error is None
        found.append(await around.rows(name, "select count(*) filter (is_incremental), count(*) from t"))

    assert found == [[(0, 1)], [(1, 2)], [(0, 1)]]


async def test_a_table_without_a_snapshot_makes_no_run_incremental(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    for rows in (0, 1, 1):
        sql = f"select {{{{ is_incremental() }}}} as is_incremental from range({rows})"
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config="merge_strategy: append_only")
        assert (await around.finished(run)).error is None

    assert await around.rows(name, "from t order by 1") == [(False,), (True,)]


async def test_a_run_reads_tables_as_they_were_when_its_branch_was_made(around: Surroundings) -> None:
    source, source_id = table_name(), uuid4()
    await around.finished(await around.request("select 1 as id", pipeline=source, pipeline_id=source_id))
    name = source.split(".")[-1]

    async def move(query: CheckAttempt) -> None:
        if query.run_id == run.id:
            around.before_check = None
            other = await around.request("select 2 as id", pipeline=source, pipeline_id=source_id)
            await around.finished(other)

    around.before_check = move
    run = await around.request(
        f"select * from {{{{ ref('bronze.{name}') }}}}",
        tests={"same": f"select * from {{{{ this }}}} where id not in (select id from {{{{ ref('bronze.{name}') }}}})"},
    )
    ended = await around.finished(run)

    assert ended.error is None
    assert await around.rows(run.pipeline) == [(1,)]
    assert await around.rows(source) == [(2,)]


async def test_facts_and_parameters_of_the_run_are_there_in_pipelines_and_tests(around: Surroundings) -> None:
    run = await around.request(
        "select '{{ run_id }}' as run, '{{ run_started_at }}' as started, {{ var('n', 3) }} as n,"
        " '{{ var('text') }}' as text, '{{ namespace }}.{{ layer }}.{{ name }}' as pipeline",
        parameters={"text": "it is"},
        tests={
            "same_run": "select * from {{ this }} where run <> '{{ run_id }}' or started > now() or text <> 'it is'"
        },
    )
    ended = await around.finished(run)

    assert ended.error is None
    assert ended.quality.passed == 1
    assert await around.rows(run.pipeline, "select run, n, text, pipeline, typeof(started) from t") == [
        (str(run.id), 3, "it is", run.pipeline, "TIMESTAMP WITH TIME ZONE")
    ]


async def test_no_new_files_write_nothing_whatever_the_strategy(around: Surroundings) -> None:
    around.zones["still"] = []
    await around.upload("lookup", "a.csv", "id\n1\n")
    name, pipeline_id = table_name(), uuid4()
    first = await around.request("select 1 as id", pipeline=name, pipeline_id=pipeline_id)
    await around.finished(first)
    sql = "select id from {{ landing_zone('still', only='new') }} join {{ landing_zone('lookup') }} using (id)"

    for config in (
        "merge_strategy: full_refresh",
        "merge_strategy: append_only",
        "merge_strategy: incremental\nunique_key: id",
        "merge_strategy: delete_insert\nunique_key: id",
        "merge_strategy: scd2\nunique_key: id",
        "merge_strategy: snapshot\npartition_column: id",
    ):
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        ended = await around.finished(run)
        assert (ended.error, ended.status, ended.rows_written, ended.tables) == (None, RunStatus.SUCCESS, 0, [])

    assert await around.rows(name) == [(1,)]


async def test_new_files_in_one_of_several_zones_are_enough(around: Surroundings) -> None:
    around.zones["quiet_zone"] = []
    around.schemas["quiet_zone"] = "id integer"
    await around.upload("busy_zone", "a.csv", "id\n1\n")
    run = await around.request(
        "from {{ landing_zone('busy_zone', only='new') }} union all from {{ landing_zone('quiet_zone', only='new') }}"
    )

    ended = await around.finished(run)

    assert (ended.error, ended.rows_written) == (None, 1)


async def test_files_of_the_platforms_own_bucket_are_read_by_address_and_no_others(around: Surroundings) -> None:
    await around.upload("literal", "a.csv", "id\n1\n")
    await around.upload("literal", "b.csv", "id\n2\n")
    bucket = around.settings.s3_bucket
    folder = f"s3://{bucket}/default/landing/literal"

    one = await around.request(f"select * from '{folder}/a.csv'")
    all_of_them = await around.request(f"select * from read_csv('{folder}/*.csv')")
    ended = [await around.finished(run) for run in (one, all_of_them)]
    elsewhere = await error_of(around, "select * from read_csv('s3://elsewhere/a.csv')")
    local = await error_of(around, "select *\nfrom read_csv('/etc/passwd')")

    assert [run.error for run in ended] == [None, None]
    assert await around.rows(one.pipeline) == [(1,)]
    assert await around.rows(all_of_them.pipeline, "from t order by id") == [(1,), (2,)]
    own = "a pipeline reads files of the platform's own bucket only"
    assert elsewhere == f'pipeline.sql:1:15: "s3://elsewhere/a.csv" cannot be read here: {own}'
    assert local == f'pipeline.sql:2:6: "/etc/passwd" cannot be read here: {own}'


async def test_a_reserved_word_before_a_dot_is_a_name_in_pipelines_and_tests(around: Surroundings) -> None:
    source = await around.request("select 1 as id")
    await around.finished(source)

    run = await around.request(
        f"select id\nfrom {source.pipeline}\nwhere id < 2",
        tests={"there": f"select * from {source.pipeline} where id is null"},
    )
    ended = await around.finished(run)
    wrong = await error_of(around, f"select ü.x, 'ü' from {source.pipeline} as ü where missing = 1")

    assert source.pipeline.startswith("default.")
    assert (ended.error, ended.quality.passed) == (None, 1)
    assert wrong.startswith("pipeline.sql:1:")


async def test_the_mark_that_editors_begin_a_file_with_hides_no_setting(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    for path, text in (
        ("pipeline.sql", "\ufeff-- @merge_strategy: append_only\nselect 1 as id"),
        ("pipeline.py", "\ufeff# @merge_strategy: append_only\nresult = duckdb.sql('select 2 as id')"),
    ):
        run = await around.request(text, path=path, pipeline=name, pipeline_id=pipeline_id)
        assert (await around.finished(run)).error is None

    assert await around.rows(name, "from t order by id") == [(1,), (2,)]


async def test_an_annotation_that_counts_for_nothing_is_told_in_the_log(around: Surroundings) -> None:
    run = await around.request('"""@merge_strategy: append_only"""\nresult = pa.table({"id": [1]})', path="pipeline.py")

    ended = await around.finished(run)

    assert ended.error is None
    [warning] = [line.message for line in ended.last_log_lines if line.level == "warning"]
    assert warning.startswith("pipeline.py:1: @merge_strategy counts for nothing here: ")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select column_name, max from (summarize {})", [("id", "2")]),
        ("select column_name, column_type from (describe {})", [("id", "BIGINT")]),
        ("table {}", [(1,), (2,)]),
    ],
)
async def test_what_takes_the_name_of_a_table_takes_ours(
    around: Surroundings, sql: str, rows: list[tuple[object, ...]]
) -> None:
    source = await around.request("select 1::bigint as id union all select 2")
    await around.finished(source)
    zone = f"z{uuid4().hex[:6]}"
    await around.upload(zone, "a.csv", "id\n1\n2\n")

    for relation in (f"{{{{ ref('{source.pipeline}') }}}}", f"{{{{ landing_zone('{zone}') }}}}"):
        run = await around.request(sql.format(relation))
        assert (await around.finished(run)).error is None
        assert await around.rows(run.pipeline, "from t order by 1") == rows


# Suggestions


async def test_settings_that_name_columns_which_the_query_does_not_give_are_told(around: Surroundings) -> None:
    sql = "select * from (select 1 as id, 'x' as name, date '2026-01-01' as day)"

    told = [
        await error_of(around, sql, config)
        for config in (
            "merge_strategy: incremental\nunique_key: name, idd",
            "merge_strategy: snapshot\npartition_column: dya",
            "partition_by: month(dya)",
            "merge_strategy: append_only\nwatermark_column: updated_at",
        )
    ]

    types = [
        await error_of(around, sql, config) for config in ("partition_by: hour(day)", "tags: a\npartition_by: day(id)")
    ]

    assert types == [
        "config.yaml:1: partition_by: column 'day' is date, which cannot be partitioned by hour",
        "config.yaml:2: partition_by: column 'id' is int, which cannot be partitioned by day",
    ]
    assert told == [
        "config.yaml:2: unique_key names 'idd', which the query does not give, did you mean 'id'?",
        "config.yaml:2: partition_column names 'dya', which the query does not give, did you mean 'day'?",
        "config.yaml:1: partition_by names 'dya', which the query does not give, did you mean 'day'?",
        "config.yaml:2: watermark_column names 'updated_at', which the query does not give,"
        " expected one of id, name, day",
    ]


async def test_what_there_is_not_is_told_with_what_may_have_been_meant(around: Surroundings) -> None:
    source = await around.request("select 1 as amount")
    await around.finished(source)
    await around.upload("sensor_readings", "a.csv", "id\n1\n")
    layer_and_name = source.pipeline.removeprefix("default.")

    table = await error_of(around, f"select *\nfrom {{{{ ref('{layer_and_name}x') }}}}")
    zone = await error_of(around, "select *\n  from {{ landing_zone('sensor_reading') }}")
    column = await error_of(around, f"select amonut\nfrom {source.pipeline}")
    own = await error_of(around, "select 1 as id\nunion all from {{ this }}")

    assert table == (f"pipeline.sql:2:6: there is no table '{source.pipeline}x', did you mean '{source.pipeline}'?")
    assert zone == (
        "pipeline.sql:2:8: there is no landing zone 'default/sensor_reading', did you mean 'default/sensor_readings'?"
    )
    assert column.startswith("pipeline.sql:1:8: ")
    assert "did you mean" in column.lower()
    assert "own table" in own
    assert "is_incremental()" in own


async def test_a_run_that_ends_before_it_writes_says_so(around: Surroundings) -> None:
    run = await around.request("select * from {{ ref('silver.nothing_like_it') }}")
    ended = await around.finished(run)

    assert ended.error_kind is ErrorKind.COMPILE
    assert await around.tables.location(Qualified.parse(run.pipeline)) is None
