"""Pipelines written in Python run in the real process of a runner, over the real servers."""

import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest

from contracts.pipelines import ValidatePipeline, Validation
from contracts.runs import AttemptFinished, ErrorKind, PinnedFile, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.object_store import object_store
from shared.settings import Settings
from tests.lives import pid_has_ended
from tests.running import RunOf, Surroundings, surroundings, table_name
from tests.waiting import eventually


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(update={"runner_workers": 2, "run_heartbeat_seconds": 1.0})


@pytest.fixture(scope="module")
async def around(settings: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(settings) as around, serve(settings):
        yield around


async def run(around: Surroundings, code: str, **facts: Any) -> tuple[RunOf, AttemptFinished]:
    one = await around.request(code, path="pipeline.py", **facts)
    return one, await around.finished(one)


async def good(around: Surroundings, code: str, **facts: Any) -> RunOf:
    one, ended = await run(around, code, **facts)
    assert ended.error is None, ended.error
    assert ended.status is RunStatus.SUCCESS
    return one


async def log_of(around: Surroundings, one: RunOf) -> list[tuple[str, str]]:
    assert one.ended is not None
    return [(line.level, line.message) for line in one.ended.last_log_lines]


RESULTS = {
    "relation": "return ctx.duckdb.sql('select range as id from range(3)')",
    "relation of a frame": "frame = pa.table({'id': [0, 1, 2]}); return ctx.duckdb.sql('from frame').filter('id >= 0')",
    "relation of another database": "import duckdb; return duckdb.connect().sql('select range as id from range(3)')",
    "relation of a table of its own": "ctx.duckdb.sql('create temp table mine as select range as id from range(3)');"
    " return ctx.duckdb.table('mine')",
    "query": "return ctx.duckdb.execute('select range as id from range(3)')",
    "reader of the run's connection": "return ctx.duckdb.execute('select range as id from range(3)').arrow()",
    "table": "return pa.table({'id': [0, 1, 2]})",
    "batch": "return pa.record_batch({'id': [0, 1, 2]})",
    "reader": "batches = (pa.record_batch({'id': [n]}) for n in range(3));"
    " return pa.RecordBatchReader.from_batches(pa.schema({'id': pa.int64()}), batches)",
    "pandas": "import pandas; return pandas.DataFrame({'id': [0, 1, 2]})",
    "pandas with an index": "import pandas; return pandas.DataFrame({'id': [0, 1, 2]}).set_index('id')[[]]",
    "polars": "import polars; return polars.DataFrame({'id': [0, 1, 2]})",
    "lazy polars": "import polars; return polars.LazyFrame({'id': [0, 1, 2]})",
}


@pytest.mark.parametrize("result", RESULTS)
async def test_what_the_code_gives_becomes_the_table(around: Surroundings, result: str) -> None:
    one = await good(around, f"import pyarrow as pa\ndef pipeline(ctx):\n    {RESULTS[result]}\n")

    assert await around.rows(one.pipeline, "select id from t order by id") == [(0,), (1,), (2,)]


SCRIPT = """
# @merge_strategy: append_only
# @watermark_column: id
log.warn("begins with {}".format(watermark_value))
where = f"where id > '{watermark_value}'" if is_incremental() else ""
rows = duckdb_conn.execute(f"select orders.id, orders.amount from {ref('bronze.SOURCE')} as orders {where}").fetchall()
if is_incremental:
    assert this.count("*").fetchone() == (2,)
    assert duckdb_conn.sql(f"select count(*) from {this}").fetchone() == (2,)
    assert duckdb_conn.sql("select count(*) from " + str(this)).fetchone() == (2,)
else:
    assert not this
result = pa.Table.from_pylist([{"id": id, "amount": amount} for id, amount in rows])
"""


async def test_a_script_of_the_same_dialect_runs_unchanged(around: Surroundings) -> None:
    source = await around.request(
        "select range as id, 10 * range as amount from range({{ var('n') }})", parameters={"n": 2}
    )
    await around.finished(source)
    name, pipeline_id = table_name(), uuid4()
    script = SCRIPT.replace("SOURCE", source.pipeline.rpartition(".")[2])

    first = await good(around, script, pipeline=name, pipeline_id=pipeline_id)
    more = await around.request(
        "select range as id, 10 * range as amount from range(4)",
        pipeline=source.pipeline,
        pipeline_id=source.pipeline_id,
    )
    await around.finished(more)
    second = await good(around, script, pipeline=name, pipeline_id=pipeline_id)

    assert await around.rows(name, "from t order by id") == [(0, 0), (1, 10), (2, 20), (3, 30)]
    assert ("warning", "begins with None") in await log_of(around, first)
    assert ("warning", "begins with 1") in await log_of(around, second)
    report = await around.report(first)
    assert [(read.type, read.name) for read in report.inputs] == [("table", source.pipeline)]


async def test_times_with_a_zone_are_values_of_pythons(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()
    code = """
# @merge_strategy: append_only
# @watermark_column: ts
print("so far", watermark_value and watermark_value.isoformat())
rows = duckdb_conn.sql("select timestamptz '2026-01-02 03:04:05+00' as ts").fetchall()
result = pa.table({"ts": [ts for ts, in rows]})
"""

    for _ in range(2):
        last = await good(around, code, pipeline=name, pipeline_id=pipeline_id)

    assert ("info", "so far 2026-01-02T03:04:05+00:00") in await log_of(around, last)


async def test_a_column_of_nothing_but_none_fits_the_table(around: Surroundings) -> None:
    name, pipeline_id = table_name(), uuid4()

    for rows in ([{"id": 1, "note": "a"}], [{"id": 2, "note": None}]):
        code = f"# @merge_strategy: append_only\nresult = pa.Table.from_pylist({rows})"
        await good(around, code, pipeline=name, pipeline_id=pipeline_id)

    assert await around.rows(name, "from t order by id") == [(1, "a"), (2, None)]


FACTS = """
import json
def pipeline(ctx):
    facts = {
        "run_id": ctx.run_id, "place": [ctx.namespace, ctx.layer, ctx.name], "given": ctx.var("n"),
        "default": ctx.var("m", 7), "incremental": [bool(ctx.is_incremental), ctx.is_incremental()],
        "watermark": ctx.watermark_value, "this": bool(ctx.this), "tags": [*ctx.config.tags],
        "same": ctx.config["tags"] == ctx.config.tags,
    }
    return ctx.duckdb.sql("select $facts as facts", params={"facts": json.dumps(facts)})
"""


async def test_the_context_says_what_the_run_is(around: Surroundings) -> None:
    one = await good(around, FACTS, parameters={"n": [1]}, config="tags: [a, b]")

    [(facts,)] = await around.rows(one.pipeline)
    assert json.loads(facts) == {
        "run_id": str(one.id),
        "place": one.pipeline.split("."),
        "given": [1],
        "default": 7,
        "incremental": [False, False],
        "watermark": None,
        "this": False,
        "tags": ["a", "b"],
        "same": True,
    }


async def test_files_of_zones_are_read_in_every_way_that_authors_write(around: Surroundings) -> None:
    zone = f"z{uuid4().hex[:6]}"
    for name in ("a", "b [1]'s"):
        await around.upload(zone, f"{name}.csv", "id,amount\n1,10.5\n")
    ways = {
        "reader": f"ctx.duckdb.read_csv(ctx.landing_zone('{zone}'))",
        "text": f"ctx.duckdb.sql(f\"from read_csv({{ctx.landing_zone('{zone}')}})\")",
        "quoted text": f"ctx.duckdb.sql(f\"from read_csv_auto('{{ctx.landing_zone('{zone}', only='new')}}')\")",
    }

    runs = [
        await around.request(f"def pipeline(ctx):\n    return {way}\n", path="pipeline.py") for way in ways.values()
    ]

    for one in runs:
        ended = await around.finished(one)
        assert ended.error is None
        assert ended.files_read == 2
        assert await around.rows(one.pipeline, "select count(*), sum(amount) from t") == [(2, 21.0)]


async def test_a_run_that_finds_no_new_files_writes_nothing(around: Surroundings) -> None:
    zone = f"z{uuid4().hex[:6]}"
    around.zones[zone] = []

    one = await good(around, f"files = landing_zone('{zone}', only='new')\nresult = duckdb.read_csv(files)")

    assert await around.merges(one) == 0
    assert ("info", "there are no new files: nothing is written") in await log_of(around, one)


ERRORS = {
    "an exception": (
        "from functools import reduce\ndef shared(row):\n    return 1 / row\n"
        "def pipeline(ctx):\n    return reduce(lambda _, row: shared(row), [1, 0])\n",
        ErrorKind.PYTHON,
        "pipeline.py:3: ZeroDivisionError: division by zero\nTraceback (most recent call last):\n"
        '  File "pipeline.py", line 5, in pipeline\n'
        "    return reduce(lambda _, row: shared(row), [1, 0])\n",
    ),
    "sql": (
        "def pipeline(ctx):\n\n    return ctx.duckdb.sql('select idd from range(3) r(id)')",
        ErrorKind.PYTHON,
        'pipeline.py:3: _duckdb.BinderException: Binder Error: Referenced column "idd" not found in FROM clause!',
    ),
    "no such table": (
        "result = ref('bronze.nowhere')",
        ErrorKind.PYTHON,
        "pipeline.py:1: LookupError: there is no table 'default.bronze.nowhere'",
    ),
    "no name": (
        "def pipeline(ctx):\n    return ctx.landing_zone(3)",
        ErrorKind.PYTHON,
        "pipeline.py:2: TypeError: landing_zone() takes a name as text, as landing_zone('orders'), not 3",
    ),
    "nothing of the context's": (
        "def pipeline(ctx):\n    return ctx.dukdb.sql('select 1 as id')",
        ErrorKind.PYTHON,
        "pipeline.py:2: AttributeError: ctx has no 'dukdb', did you mean 'duckdb'?",
    ),
    "a result that is none": (
        "def pipeline(ctx):\n    pass",
        ErrorKind.PYTHON,
        "pipeline.py: the result is nothing (None); expected a DuckDB relation, an Arrow table or reader, or a pandas",
    ),
    "dicts": (
        "result = [{'id': 1}]",
        ErrorKind.PYTHON,
        "pipeline.py: the result is a list of dicts (`pa.Table.from_pylist(rows)` makes a table of it); expected a",
    ),
    "a column alone": (
        "import pandas\nresult = pandas.Series([1])",
        ErrorKind.PYTHON,
        "pipeline.py: the result is a Series; expected a",
    ),
    "an end of its own": (
        "import sys\nsys.exit(3)\nresult = 1",
        ErrorKind.PYTHON,
        "pipeline.py:2: the code ended itself",
    ),
    "rows that break off": (
        "import pyarrow as pa\ndef rows():\n    yield pa.record_batch({'id': [1]})\n    raise ValueError('no more')\n"
        "def pipeline(ctx):\n    return pa.RecordBatchReader.from_batches(pa.schema({'id': pa.int64()}), rows())",
        ErrorKind.PYTHON,
        "pipeline.py:4: ValueError: no more\nTraceback",
    ),
    "rows that do not convert": (
        "def pipeline(ctx):\n    return ctx.duckdb.sql(\"select cast('x' || range as int) as id from range(3)\")",
        ErrorKind.SQL,
        "pipeline.py: Could not convert string",
    ),
    "a mistake of syntax": (
        "def pipeline(ctx):\n    return (\n",
        ErrorKind.COMPILE,
        "pipeline.py:2:12: '(' was never closed",
    ),
    "nothing at all": ("x = 1", ErrorKind.COMPILE, "pipeline.py: there is neither a function `pipeline(ctx)` nor"),
    "memory": (
        "# @memory_limit: 64MB\nresult = duckdb.sql('select array_agg(range) from range(1e8::bigint)')",
        ErrorKind.MEMORY,
        "",
    ),
}


async def test_what_goes_wrong_is_told_by_line(around: Surroundings) -> None:
    runs = {name: await around.request(code, path="pipeline.py") for name, (code, _, _) in ERRORS.items()}

    ends = {name: await around.finished(one, within=120) for name, one in runs.items()}

    for name, ended in ends.items():
        _, kind, message = ERRORS[name]
        assert (ended.status, ended.error_kind) == (RunStatus.FAILED, kind), (name, ended.error)
        assert ended.error is not None
        assert ended.error.startswith(message), (name, ended.error)
        assert "services/runner" not in ended.error, ended.error


TALK = """
import logging, os, subprocess, sys, warnings
print("to standard", "output")
print("one", end=" "); print("line")
print("to standard error", file=sys.stderr)
os.write(1, b"from the process\\n")
subprocess.run(["echo", "from a process below"])
warnings.warn("careful")
logging.getLogger("theirs").error("from a library")
log.info("read %d rows", 3)
log.debug("not this")
log.info("no number: %d", "x")
try:
    input()
except EOFError:
    print("nothing to read")
while True:
    pass
"""


async def test_what_the_code_says_is_told_while_it_runs_and_cancel_ends_it_whatever_it_does(
    around: Surroundings,
) -> None:
    one = await around.request(TALK + "result = 1", path="pipeline.py")
    expected = {
        ("info", "to standard output"),
        ("info", "one line"),
        ("info", "to standard error"),
        ("info", "from the process"),
        ("info", "from a process below"),
        ("warning", "pipeline.py:8: UserWarning: careful"),
        ("error", "from a library"),
        ("info", "read 3 rows"),
        ("info", "nothing to read"),
    }

    told = await eventually(
        lambda: expected <= {(event.line.level, event.line.message) for event in one.log} and one.log, within=60
    )
    began = perf_counter()
    await around.cancel(one)
    ended = await around.finished(one)

    assert ended.status is RunStatus.CANCELLED
    # Its own end is never.
    assert perf_counter() - began < 30
    assert "not this" not in {event.line.message for event in told}


async def test_an_endless_loop_ends_with_its_time_and_all_that_it_started_with_it(around: Surroundings) -> None:
    code = """
# @timeout_seconds: 8
import subprocess
child = subprocess.Popen(["sleep", "600"])
print("child", child.pid)
while True:
    pass
result = None
"""
    one, ended = await run(around, code)

    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.TIMEOUT)
    [child] = [int(message.split()[1]) for _, message in await log_of(around, one) if message.startswith("child")]
    await eventually(lambda: pid_has_ended(child))


@pytest.mark.timeout(600)
async def test_code_that_never_stops_talking_neither_fills_the_log_nor_holds_up_another_run(
    around: Surroundings,
) -> None:
    endless = await around.request("while True:\n    print('x' * 1000)\nresult = None", path="pipeline.py")
    await eventually(lambda: any("is not kept" in event.line.message for event in endless.log), within=300)

    other = await around.request("select 1 as id")
    ended = await around.finished(other, within=120)

    assert ended.error is None
    assert len(endless.log) < 50_000
    await around.cancel(endless)
    assert (await around.finished(endless)).status is RunStatus.CANCELLED


LEAVES = """
import os, sys, threading, builtins, warnings
left = os.environ.get("LEFT"), os.getcwd(), "/left" in sys.path, hasattr(builtins, "left"), "left" in sys.modules
print("state", os.getpid(), *left)
os.environ["LEFT"] = "1"; os.chdir("/"); sys.path.insert(0, "/left"); builtins.left = 1; sys.modules["left"] = os
threading.Thread(target=threading.Event().wait).start()
duckdb.execute("create table left_behind as select 1")
result = duckdb.sql("select table_name from duckdb_tables()")
"""


async def test_half_a_character_is_told_as_a_mark_and_costs_no_process(around: Surroundings) -> None:
    one, ended = await run(
        around, "def pipeline(ctx):\n    ctx.log.info('half \\ud800')\n    raise ValueError('half \\ud800')"
    )

    assert ended.error_kind is ErrorKind.PYTHON
    assert ended.error is not None
    assert ended.error.startswith("pipeline.py:3: ValueError: half ?")
    assert ("info", "half ?") in await log_of(around, one)


async def test_nothing_that_code_leaves_behind_meets_the_next_run(around: Surroundings) -> None:
    states = []
    for _ in range(2):
        one = await good(around, LEAVES)
        [state] = [message.split() for _, message in await log_of(around, one) if message.startswith("state")]
        states.append(state)
        assert await around.rows(one.pipeline) == [("left_behind",)]

    assert states[0][1] != states[1][1]
    assert states[0][2:] == states[1][2:]


async def test_tests_judge_what_python_made(around: Surroundings) -> None:
    one, ended = await run(
        around,
        "result = pa.table({'id': [1, 11]})",
        tests={
            "small": "select * from {{ this }} where id > 10",
            "some": "select 1 from {{ this }} having count(*) = 0",
        },
    )

    assert (ended.status, ended.error_kind) == (RunStatus.FAILED, ErrorKind.QUALITY)
    assert (ended.quality.passed, ended.quality.failed) == (1, 1)
    assert await around.merges(one) == 0


async def test_publishing_reads_python_without_running_it(around: Surroundings) -> None:
    async def validation(code: str) -> Validation:
        put = await around.code.put("default/pipelines/bronze/checked/pipeline.py", code.encode())
        pinned = [PinnedFile(path="pipeline.py", version_id=put.version_id or "")]
        return await around.bus.ask(ValidatePipeline(pipeline="default.bronze.checked", files=pinned))

    fine = await validation(
        "# @description: what it is\nraise SystemExit\n"
        "def pipeline(context):\n    context.landing_zone('orders', only='new')\n    return context.ref('silver.a')\n"
    )
    broken = await validation("# @merge_strategy: incremntal\nx = (1,\n")
    unnamed = await validation("def pipeline(ctx):\n    return ctx.ref('orders')\n")

    assert fine.valid
    assert fine.description == "what it is"
    assert fine.reads_tables == ["default.silver.a"]
    assert [(zone.zone, zone.only_new) for zone in fine.reads_zones] == [("orders", True)]
    assert "full_refresh keeps the last batch only" in fine.files[0].warnings[0].message
    assert [error.line for error in broken.files[0].errors] == [1, 2]
    assert [error.line for error in unnamed.files[0].errors] == [2]


SEEKS = """
import gc, os
secrets = set(var("secrets"))
environment = {*os.environ.values(), open("/proc/self/environ").read()}
print("environment", [secret for secret in secrets for value in environment if secret in value])
held = [value for known in gc.get_objects() if isinstance(known, dict) for value in list(known.values())]
texts = [value for value in held if isinstance(value, str) and value not in var("secrets")]
print("memory", [secret for secret in secrets for text in texts if secret in text])
def may(statement):
    try:
        duckdb.execute(statement)
        return True
    except Exception as error:
        if "403" not in str(error) and "Forbidden" not in str(error):
            raise
        return False
bucket = var("bucket")
print("other table", may(f"copy (select 1) to 's3://{bucket}/default/gold/other/1/data/x.parquet'"))
print("own table", may(f"copy (select 1) to 's3://{bucket}/{namespace}/{layer}/{name}/1/data/x.parquet'"))
print("zone of another", may(f"from read_text('s3://{bucket}/other/landing/zone/a.csv')"))
print("code", may(f"from read_text('s3://{bucket}/default/pipelines/{layer}/{name}/pipeline.py')"))
result = pa.table({"id": [1]})
"""


async def test_code_finds_no_password_and_can_do_no_more_than_its_run(around: Surroundings) -> None:
    settings = around.settings
    async with object_store(settings, "infra") as objects:
        await objects.put("other/landing/zone/a.csv", b"id\n1\n")
    secrets = [
        *(password.get_secret_value() for password in settings.postgres_passwords.values()),
        *(password.get_secret_value() for password in settings.nats_passwords.values()),
        *(token.get_secret_value() for token in settings.nessie_tokens.values()),
        *(key.secret_access_key.get_secret_value() for key in settings.s3_keys.values()),
    ]

    one = await good(around, SEEKS, parameters={"secrets": secrets, "bucket": settings.s3_bucket})

    said = [message for _, message in await log_of(around, one)]
    assert "environment []" in said
    assert "memory []" in said
    assert "other table False" in said
    assert "own table True" in said
    assert "zone of another False" in said
    assert "code False" in said
