"""The runner works on runs, over the real servers; the test is catalog and ingest."""

import re
import signal
from collections.abc import AsyncIterator
from datetime import datetime, time
from decimal import Decimal
from time import perf_counter
from uuid import UUID, uuid4

import psutil
import pytest

from contracts.names import Qualified
from contracts.pipelines import ValidatePipeline
from contracts.runs import AttemptFinished, CheckAttempt, ErrorKind, RunStatus
from infra.stacks.stack import Stack
from services.catalog.runs import domain
from services.runner.service import serve
from shared.settings import Settings
from tests.lives import command_of, signalled
from tests.running import RunOf, Surroundings, surroundings, table_name
from tests.waiting import eventually


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(
        update={"runner_workers": 2, "run_lease_seconds": 6.0, "run_heartbeat_seconds": 1.0}
    )


@pytest.fixture(scope="module")
async def around(settings: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(settings) as around, serve(settings):
        yield around


async def test_files_of_a_zone_become_a_tested_table_on_main(around: Surroundings) -> None:
    await around.upload("orders", "a.csv", "id,amount\n1,10.5\n2,20\n")
    await around.upload("orders", "b [1]'s.csv", "id,amount\n3,30\n")
    await around.upload("orders", "c.csv", "id,amount\n4,40\n")

    run = await around.request(
        "select * from {{ landing_zone('orders') }}",
        tests={
            "no_null": "select * from {{ this }} where id is null",
            "positive": "-- @severity: error\nselect * from {{ this }} where amount <= 0",
        },
    )
    ended = await around.finished(run)

    assert ended.error is None
    assert ended.status is RunStatus.SUCCESS
    assert await around.rows(run.pipeline, "select count(*), sum(amount) from t") == [(4, 100.5)]
    assert (ended.rows_written, ended.files_read, ended.quality.passed) == (4, 3, 2)
    assert [phase.name for phase in ended.phases] == ["branch", "compile", "write", "quality", "merge"]


async def test_what_happens_is_told_while_it_happens(around: Surroundings) -> None:
    run = await around.request("select 1 as id", tests={"none": "select * from {{ this }} where id <> 1"})
    await around.finished(run)

    def phases() -> list[str]:
        return [event.phase.name for event in run.progress if event.phase is not None]

    told = await eventually(lambda: len(phases()) >= 4 and phases())
    assert set(told) <= {"branch", "compile", "write", "quality", "merge"}
    report = await around.report(run)
    assert run.ended is not None
    assert run.ended.logs_key is not None
    lines = (await around.code.get(run.ended.logs_key)).decode().splitlines()
    assert len(lines) == len(run.ended.last_log_lines) > 2
    assert (report.status, report.rows_written, report.outputs[0].table) == (RunStatus.SUCCESS, 1, run.pipeline)
    assert report.quality[0].compiled_sql is not None


async def test_a_failing_test_leaves_main_as_it_was(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    tests = {"small": "-- @description: ids are small\nselect * from {{ this }} where id > 10"}
    good = await around.request("select 1 as id", pipeline=name, pipeline_id=pipeline_id, tests=tests)
    await around.finished(good)
    before = await around.tables.head()

    bad = await around.request("select 11 as id", pipeline=name, pipeline_id=pipeline_id, tests=tests)
    ended = await around.finished(bad)

    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.QUALITY)
    assert ended.error == "test small found 1 row (ids are small)"
    assert await around.rows(name) == [(1,)]
    assert await around.tables.head() == before
    assert await around.open_branches(bad) == []
    assert (await around.report(bad)).quality[0].sample_rows == [{"id": 11}]
    assert await around.tables.location(Qualified.parse(name), ended.branch or "") is not None

    fixed = await around.request("select 2 as id", pipeline=name, pipeline_id=pipeline_id, tests=tests)
    assert (await around.finished(fixed)).status is RunStatus.SUCCESS


async def test_a_test_that_cannot_run_blocks_and_a_warning_does_not(around: Surroundings) -> None:
    broken = await around.request("select 1 as id", tests={"typo": "select * from {{ this }} where idd > 1"})
    warned = await around.request(
        "select 1 as id", tests={"odd": "-- @severity: warn\nselect *, 1::hugeint << 80 as big from {{ this }}"}
    )

    unread = await around.request(
        "select 1 as id",
        tests={
            "zone": "-- @severity: warn\nfrom {{ landing_zone('gone') }}",
            "ever": "-- @severity: warn\nselect 'infinity'::date as ever, '-infinity'::timestamptz as never",
        },
    )

    failed, merged = await around.finished(broken), await around.finished(warned)
    told = await around.finished(unread)

    assert failed.error_kind is ErrorKind.QUALITY
    assert failed.error is not None
    assert "tests/quality/typo.sql:1:32" in failed.error
    assert failed.quality.errored == 1
    assert merged.status is RunStatus.SUCCESS
    assert merged.quality.warned == 1
    assert (await around.report(warned)).quality[0].sample_rows == [{"id": 1, "big": str(2**80)}]
    assert (told.error, told.quality.errored, told.quality.warned) == (None, 1, 1)
    ever, zone = (await around.report(unread)).quality
    assert ever.sample_rows == [{"ever": "infinity", "never": "-infinity"}]
    assert (zone.message or "").startswith("tests/quality/zone.sql:2:6: there is no landing zone 'default/gone'")


async def test_rows_are_appended_and_full_refresh_replaces_them_even_by_none(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    async def run(sql: str, strategy: str) -> None:
        config = f"merge_strategy: {strategy}"
        one = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        assert (await around.finished(one)).error is None

    await run("select 1 as id", "append_only")
    await run(
        "{% if is_incremental() %}select max(id) + 1 as id from {{ this }}{% else %}boom{% endif %}", "append_only"
    )
    assert await around.rows(name, "from t order by id") == [(1,), (2,)]
    await run("select 7 as id where false", "append_only")
    assert await around.rows(name, "from t order by id") == [(1,), (2,)]
    await run("select 7 as id", "full_refresh")
    assert await around.rows(name) == [(7,)]
    await run("select 7 as id where false", "full_refresh")
    assert await around.rows(name) == []


async def test_columns_are_added_and_widened_and_never_made_what_they_cannot_be(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    config = "merge_strategy: append_only"
    for sql in ("select 1::int as id, 1::float as x", "select 2::bigint as ID, 'a' as name", "select 3.5::double as x"):
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        assert (await around.finished(run)).error is None

    rows = await around.rows(name, "select id, x, name from t order by id nulls last")
    impossible = await around.request("select 'a' as id", pipeline=name, pipeline_id=pipeline_id, config=config)
    ended = await around.finished(impossible)

    assert rows == [(1, 1.0, None), (2, None, "a"), (None, 3.5, None)]
    assert ended.error_kind is ErrorKind.SCHEMA
    assert ended.error is not None
    assert "'id' is long in the table and string (VARCHAR) in the query" in ended.error


async def test_every_type_of_a_result_is_kept_or_refused_by_name(around: Surroundings) -> None:
    run = await around.request(
        """
        select 1::tinyint as a, 2::ubigint as b, 3::hugeint as c, 'x'::enum('x', 'y') as d,
          uuid '00000000-0000-0000-0000-000000000001' as e, 'ab'::blob as f, [{'k': 1.5}] as g, map {'a': [1]} as h,
          time '10:00' as i, timestamptz '2026-01-01 00:00:00+00' as j, timestamp_ns '2026-01-01' as k, true as l
        """
    )
    other = await around.request("select 1 as id, interval 1 day as lag")

    ended, refused = await around.finished(run), await around.finished(other)

    assert ended.error is None
    [row] = await around.rows(
        run.pipeline, "select a, b, c, d, e, f, g, h, i, j = '2026-01-01 00:00:00+00', k, l from t"
    )
    assert row[:6] == (1, 2, 3, "x", UUID(int=1), b"ab")
    assert row[6:8] == ([{"k": Decimal("1.5")}], {"a": [1]})
    assert row[8:] == (time(10), True, datetime(2026, 1, 1), True)  # noqa: DTZ001  # the column has no zone
    assert refused.error == "column 'lag' has the type INTERVAL, which Iceberg cannot keep; cast it to another"


async def test_an_error_is_told_with_its_place_in_the_authors_file(around: Surroundings) -> None:
    sql = "-- @merge_strategy: full_refresh\nselect 'ü' as a,\n  missing\nfrom (select 1 as id)"
    syntax = await around.request("select 1 as id\nfromm x")
    binder = await around.request(sql)
    jinja = await around.request("select 1\n{{ nothing }}")
    config = await around.request("select 1", config="\nmerge_strategy: incremntal")
    unknown = await around.request("select * from {{ ref('silver.nothing') }}")
    zone = await around.request("select * from {{ landing_zone('nowhere') }}")

    errors = [await around.finished(run) for run in (syntax, binder, jinja, config, unknown, zone)]

    kinds = [error.error_kind for error in errors]
    assert kinds == ["compile", "sql", "compile", "compile", "compile", "compile"]
    texts = [error.error or "" for error in errors]
    assert texts[0].startswith("pipeline.sql:2:1: syntax error")
    assert texts[1] == 'pipeline.sql:3:3: there is no column "missing"; there is "id"'
    assert texts[2] == "pipeline.sql:2:4: 'nothing' is undefined"
    assert texts[3].startswith("config.yaml:2: unknown merge_strategy 'incremntal'")
    assert texts[4] == "pipeline.sql:1:15: there is no table 'default.silver.nothing'"
    assert texts[5] == "pipeline.sql:1:15: there is no landing zone 'default/nowhere'"


async def test_tables_are_read_by_reference_and_by_name(around: Surroundings) -> None:
    source = await around.request("select 1 as id union all select 2")
    await around.finished(source)
    name = source.pipeline.split(".")[-1]

    run = await around.request(
        f"select a.id, {name}.id as again from {{{{ ref('bronze.{name}') }}}} a"
        f" join default.bronze.{name} using (id) where default.bronze.{name}.id > 1"
    )
    ended = await around.finished(run)

    assert ended.error is None
    assert await around.rows(run.pipeline) == [(2, 2)]
    report = await around.report(run)
    assert [(one.type, one.name) for one in report.inputs] == [("table", source.pipeline)]
    assert report.inputs[0].snapshot is not None


async def test_no_new_files_are_a_success_without_a_merge(around: Surroundings) -> None:
    around.zones["quiet"] = []
    around.not_yet = 3

    run = await around.request("select * from {{ landing_zone('quiet', only='new') }}")
    ended = await around.finished(run)

    assert (ended.status, ended.rows_written, ended.tables) == (RunStatus.SUCCESS, 0, [])
    assert await around.tables.location(Qualified.parse(run.pipeline)) is None
    assert await around.open_branches(run) == []


async def test_an_empty_zone_has_the_columns_that_are_known_of_it(around: Surroundings) -> None:
    around.zones["planned"], around.zones["unknown"] = [], []
    around.schemas["planned"] = "id bigint not null, name varchar"

    planned = await around.request("select * from read_csv('{{ landing_zone('planned') }}', header = true)")
    unknown = await around.request("select * from {{ landing_zone('unknown') }}")
    ended, refused = await around.finished(planned), await around.finished(unknown)

    assert ended.status is RunStatus.SUCCESS
    assert await around.rows(planned.pipeline, "select count(id), count(name) from t") == [(0, 0)]
    assert refused.error_kind is ErrorKind.COMPILE
    assert "landing zone default/unknown is empty" in (refused.error or "")


async def test_a_table_of_a_deleted_pipeline_is_replaced_as_a_whole_or_not_at_all(around: Surroundings) -> None:
    name = table_name()
    await around.finished(await around.request("select 'a' as id", pipeline=name))

    appended = await around.request("select 1 as id", pipeline=name, config="merge_strategy: append_only")
    refused = await around.finished(appended)
    replaced = await around.finished(await around.request("select 1 as id", pipeline=name))

    assert refused.error_kind is ErrorKind.SCHEMA
    assert "written by another pipeline" in (refused.error or "")
    assert replaced.status is RunStatus.SUCCESS
    assert await around.rows(name) == [(1,)]


async def test_a_dry_run_leaves_main_alone_and_says_what_would_change(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    tests = {"small": "-- @severity: warn\nselect * from {{ this }} where id > 3"}
    first = await around.request(
        "select * from (values (1, 'a'), (2, 'b'), (2, 'b'), (3, null)) t(id, name)",
        pipeline=name,
        pipeline_id=pipeline_id,
    )
    assert (await around.finished(first)).error is None
    head = await around.tables.head()

    run = await around.request(
        "select * from (values (1::bigint, 'a', 5), (2, 'c', 5), (4, 'd', 5)) t(id, name, \"order\")",
        pipeline=name,
        pipeline_id=pipeline_id,
        tests=tests,
        config="unique_key: ID",
        dry_run=True,
    )
    ended = await around.finished(run)

    assert (ended.error, ended.status, ended.rows_written, ended.tables) == (None, RunStatus.SUCCESS, 3, [])
    assert [phase.name for phase in ended.phases] == ["branch", "compile", "write", "quality"]
    assert await around.tables.head() == head
    assert await around.rows(name, "select count(*) from t") == [(4,)]
    assert await around.open_branches(run) == []
    report = await around.report(run)
    assert [(result.name, result.status, result.value) for result in report.quality] == [("small", "warned", 1)]
    [change] = report.changes
    # Every row has a new column, so that 1 and 2 change; of 2 there is one less, 3 goes, 4 comes.
    assert (change.table, change.is_new) == (name, False)
    assert (change.rows_added, change.rows_removed, change.rows_changed) == (1, 2, 2)
    assert [(one.column, one.change, one.before, one.after) for one in change.schema_changes] == [
        ("order", "added", None, "INTEGER"),
        ("id", "type_changed", "INTEGER", "BIGINT"),
    ]


async def test_a_dry_run_of_a_table_that_is_not_there_yet_adds_all_of_it(around: Surroundings) -> None:
    run = await around.request("select range as id from range(7)", dry_run=True)
    ended = await around.finished(run)

    assert ended.error is None
    assert await around.tables.location(Qualified.parse(run.pipeline)) is None
    [change] = (await around.report(run)).changes
    assert (change.is_new, change.rows_added, change.rows_removed, change.rows_changed) == (True, 7, 0, 0)
    assert [(one.column, one.change, one.after) for one in change.schema_changes] == [("id", "added", "BIGINT")]


async def test_a_dry_run_whose_test_fails_fails_and_says_what_would_have_changed(around: Surroundings) -> None:
    run = await around.request("select 1 as id", dry_run=True, tests={"none": "select * from {{ this }}"})
    ended = await around.finished(run)

    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.QUALITY)
    assert [change.rows_added for change in (await around.report(run)).changes] == [1]


async def test_a_run_whose_table_others_have_moved_starts_again(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    async def interfere(query: CheckAttempt) -> None:
        if query.attempt == 1 and query.run_id == run.id:
            other = await around.request("select 1 as id", pipeline=name, pipeline_id=pipeline_id)
            await around.finished(other)

    around.before_check = interfere
    run = await around.request(
        "select 2 as id", pipeline=name, pipeline_id=pipeline_id, config="merge_strategy: append_only"
    )
    ended = await around.finished(run)
    around.before_check = None

    assert (ended.status, ended.attempt, run.reasons) == (RunStatus.SUCCESS, 2, ["delivery", "conflict"])
    assert await around.rows(name, "from t order by id") == [(1,), (2,)]
    assert await around.open_branches(run) == []


async def test_files_that_change_under_a_run_make_it_start_again(around: Surroundings) -> None:
    await around.upload("moving", "a.csv", "id\n1\n")

    run = await around.request("select * from {{ landing_zone('moving') }}", checks=["changed", "changed"])
    ended = await around.finished(run)

    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 3)
    assert run.reasons == ["delivery", "files_changed", "files_changed"]
    assert await around.merges(run) == 1


async def test_a_file_that_vanishes_under_a_run_makes_it_start_again(around: Surroundings) -> None:
    await around.upload("vanishing", "a.csv", "id\n1\n")
    [file] = around.zones["vanishing"]
    await around.bucket.delete(file.key)
    around.zones["vanishing"] = [file]

    async def replace() -> None:
        around.zones["vanishing"] = []
        await around.upload("vanishing", "b.csv", "id\n2\n")

    around.when_changed = replace
    run = await around.request("select * from {{ landing_zone('vanishing') }}", checks=["changed"])
    ended = await around.finished(run)
    around.when_changed = None

    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 2)


async def test_a_superseded_attempt_stops_without_a_word(around: Surroundings) -> None:
    async def supersede(query: CheckAttempt) -> None:
        if query.run_id == run.id and query.attempt == 1:
            run.state = domain.replace(run.state, attempt=2)

    around.before_check = supersede
    run = await around.request("select 1 as id")
    ended = await around.finished(run)
    around.before_check = None

    assert ended.attempt == 3
    assert [end.attempt for end in run.ends] == [3]
    assert run.reasons == ["delivery", "delivery"]
    assert await around.merges(run) == 1


async def test_a_run_that_is_not_wanted_any_more_ends_as_catalog_says(around: Surroundings) -> None:
    async def cancel(query: CheckAttempt) -> None:
        if query.run_id == run.id:
            run.state = domain.replace(run.state, cancel_requested=True)

    around.before_check = cancel
    run = await around.request("select 1 as id")
    ended = await around.finished(run)
    around.before_check = None

    assert (ended.status, ended.error_kind) == (RunStatus.CANCELLED, ErrorKind.CANCELLED)
    assert await around.open_branches(run) == []
    assert await around.merges(run) == 0


SLOW = "select count(*) as n from range({{ var('n') }}) a, range(1000) b where hash(a.range + b.range) % 7 = 1"


async def test_a_cancelled_run_ends_at_once_whatever_it_does(around: Surroundings) -> None:
    run = await around.request(SLOW, parameters={"n": 100_000_000})
    await eventually(lambda: "compile" in _phases(run))

    began = perf_counter()
    await around.cancel(run)
    ended = await around.finished(run)

    # By itself it would end in hours.
    assert perf_counter() - began < 30
    assert (ended.status, ended.attempt) == (RunStatus.CANCELLED, 1)
    assert await around.open_branches(run) == []
    assert (await around.report(run)).error == "cancelled on request"
    how, milliseconds = _stopped(ended)
    # On a machine that has too much to do, the process may not get to it in time.
    assert how.startswith(("interrupted", "killed"))
    assert milliseconds < 10_000


async def test_a_cancelled_run_that_heeds_no_interrupt_is_killed(around: Surroundings) -> None:
    slow_test = f"with t as ({SLOW}) select * from t where n < 0"
    run = await around.request("select 1 as id", tests={"slow": slow_test}, parameters={"n": 10**9})
    await eventually(lambda: "write" in _phases(run))
    signalled(_processes(), signal.SIGSTOP)

    await around.cancel(run)
    ended = await around.finished(run)
    signalled(_processes(), signal.SIGCONT)

    assert ended.status is RunStatus.CANCELLED
    how, milliseconds = _stopped(ended)
    assert how == "killed, as it did not heed an interrupt"
    assert 400 < milliseconds < 20_000
    assert await around.merges(run) == 0


@pytest.mark.parametrize("after", ["write", "quality"])
async def test_a_run_that_is_cancelled_late_is_what_main_says(around: Surroundings, after: str) -> None:
    run = await around.request("select 1 as id", tests={"fine": "select * from {{ this }} where id > 1"})
    await eventually(lambda: after in _phases(run))

    await around.cancel(run)
    ended = await around.finished(run)

    assert (ended.status is RunStatus.SUCCESS) == (await around.merges(run) == 1)
    assert ended.status in (RunStatus.SUCCESS, RunStatus.CANCELLED)
    assert [end.status for end in run.ends] == [ended.status]


async def test_a_run_that_takes_too_long_fails_and_says_where_it_was(around: Surroundings) -> None:
    slow_test = f"with t as ({SLOW}) select * from t where n < 0"
    writing = await around.request(SLOW, parameters={"n": 100_000_000}, config="timeout_seconds: 10")
    testing = await around.request(
        "select 1 as id", tests={"slow": slow_test}, parameters={"n": 100_000_000}, config="timeout_seconds: 10"
    )

    # Two loops of Jinja's, of the length that it allows each.
    compiling = await around.request(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}select 1 as id",
        config="timeout_seconds: 3",
    )

    ended = [await around.finished(run, within=60) for run in (writing, testing, compiling)]

    assert [one.error_kind for one in ended] == [ErrorKind.TIMEOUT] * 3
    assert ended[0].error == "took longer than 10 s (timeout_seconds) in phase write"
    assert ended[1].error == "took longer than 10 s (timeout_seconds) in phase quality"
    assert (ended[2].error or "").startswith("took longer than 3 s (timeout_seconds) in phase ")


async def test_a_run_that_needs_too_much_memory_fails_and_says_what_used_it_up(around: Surroundings) -> None:
    greedy = "select list(range) as all_of_them from range(100000000)"
    writing = await around.request(greedy, config="memory_limit: 100MB")
    testing = await around.request(
        "select 1 as id",
        tests={"greedy": f"select * from ({greedy}) where len(all_of_them) = 0"},
        config="memory_limit: 100MB",
    )

    ended = [await around.finished(run, within=60) for run in (writing, testing)]

    assert [one.error_kind for one in ended] == [ErrorKind.MEMORY, ErrorKind.MEMORY]
    errors = [one.error or "" for one in ended]
    assert errors[0].startswith("memory_limit of 100 MB was used up in phase write: Out of Memory error: ")
    assert errors[1].startswith("memory_limit of 100 MB was used up in phase quality: test greedy: ")
    assert all("\n" not in error for error in errors)


async def test_what_postgresql_cannot_keep_is_told_in_another_way(around: Surroundings) -> None:
    run = await around.request("select 1 as id", tests={"nul": "select 'a' || chr(0) as text from {{ this }}"})
    ended = await around.finished(run)

    [result] = (await around.report(run)).quality
    assert result.sample_rows == [{"text": "a�"}]
    assert "\0" not in ended.model_dump_json()


@pytest.mark.parametrize("phase", ["branch", "compile", "write", "quality"])
async def test_a_process_that_is_killed_is_followed_by_the_next_attempt(around: Surroundings, phase: str) -> None:
    slow = SLOW.replace("'n'", "'test'")
    slow_test = f"with t as ({slow}) select * from t where n < 0"
    await around.upload(f"killed_{phase}", "a.csv", "id\n1\n")
    parameters = {"n": 10**9 if phase == "write" else 1, "test": 10**9 if phase == "quality" else 1}
    sql = f"with t as ({SLOW}) select id, n from t, {{{{ landing_zone('killed_{phase}') }}}}"
    runners = _processes()

    async def kill() -> None:
        run.parameters = {"n": 1, "test": 1}
        signalled(_processes(), signal.SIGKILL)

    async def kill_when_checked(query: CheckAttempt) -> None:
        if query.run_id == run.id and query.attempt == 1:
            # Until its process asks for files, the run may still be waiting for one.
            await eventually(lambda: run.id in around.asked_files, within=25)
            await kill()

    if phase == "branch":
        around.before_check = kill_when_checked
    around.not_yet = 20 if phase == "compile" else 0
    run = await around.request(sql, tests={"slow": slow_test}, parameters=parameters)
    if phase == "compile":
        await eventually(lambda: run.state.attempt == 1 and around.not_yet < 15)
    elif phase != "branch":
        await eventually(lambda: ("compile" if phase == "write" else "write") in _phases(run))
    if phase != "branch":
        await kill()
    ended = await around.finished(run)
    around.before_check, around.not_yet = None, 0

    assert runners
    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 2)
    assert run.reasons == ["delivery", "unavailable"]
    assert await around.merges(run) == 1
    assert await around.open_branches(run) == []


@pytest.mark.timeout(600)
async def test_a_run_that_kills_its_processes_ends(around: Surroundings) -> None:
    run = await around.request(SLOW, parameters={"n": 10**9})
    killed = 0
    while run.ended is None:
        await eventually(lambda seen=killed: run.ended or _phases(run).count("compile") > seen)
        killed = _phases(run).count("compile")
        signalled(_processes(), signal.SIGKILL)
    ended = run.ended

    assert ended.error_kind is ErrorKind.UNAVAILABLE
    assert ended.error is not None
    assert ended.error.startswith("5 processes in a row were lost while they worked on this run")
    assert any(line.message.startswith("attempt 1 ends (unavailable)") for line in ended.last_log_lines)


async def test_a_server_that_dies_is_waited_for(around: Surroundings, stack: Stack) -> None:
    runs = [await around.request(SLOW, parameters={"n": 20_000}) for _ in range(3)]
    await eventually(lambda: any("compile" in _phases(run) for run in runs))

    await stack.kill("postgres")

    for run in runs:
        assert (await around.finished(run, within=60)).status is RunStatus.SUCCESS
        assert await around.merges(run) == 1


async def test_the_files_of_a_pipeline_are_checked_without_running_them(around: Surroundings) -> None:
    run = await around.request(
        "-- @merge_strategy: append_onli\nselect * from {{ ref('silver.a') }}, {{ landing_zone('z', only='new') }}",
        tests={"good": "-- @severity: warn\n-- @tags: a, b\nselect 1", "bad": "select 1;\nselect 2"},
        config="archive_landing_zones: true\nretries: 3",
    )
    await around.finished(run)

    found = await around.bus.ask(ValidatePipeline(pipeline=run.pipeline, files=run.files))

    errors = {file.path: [(e.line, e.message) for e in file.errors] for file in found.files if file.errors}
    assert not found.valid
    assert found.archives_files
    assert found.reads_tables == ["default.silver.a"]
    assert [(zone.zone, zone.only_new) for zone in found.reads_zones] == [("z", True)]
    assert errors["pipeline.sql"] == [(1, "unknown merge_strategy 'append_onli', did you mean 'append_only'?")]
    assert errors["config.yaml"] == [(2, "unknown key 'retries', did you mean 'max_retries'?")]
    assert errors["tests/quality/bad.sql"] == [(2, "expected one query, and here begins another")]
    assert [(test.name, test.severity, test.tags) for test in found.tests][1] == ("good", "warn", ["a", "b"])


def _stopped(ended: AttemptFinished) -> tuple[str, int]:
    """How the work of a run was stopped, and after how many milliseconds."""
    [found] = [
        found
        for line in ended.last_log_lines
        if (found := re.fullmatch(r"the work was (.+) after (\d+) ms", line.message))
    ]
    return found[1], int(found[2])


def _phases(run: RunOf) -> list[str]:
    return [event.phase.name for event in run.progress if event.phase is not None]


def _processes() -> list[psutil.Process]:
    """The processes of the pool: this one is the runner."""
    children = psutil.Process().children()
    return [child for child in children if "services.runner.process" in command_of(child)]
