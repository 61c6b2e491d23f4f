"""Pipelines written in Python run in the real process of a runner, over the real servers."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from contracts.runs import AttemptFinished, ErrorKind, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.running import RunOf, Surroundings, surroundings, table_name


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(
        update={"runner_workers": 2, "run_lease_seconds": 3.0, "run_heartbeat_seconds": 1.0}
    )


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
    "relation of a table of its own": "ctx.duckdb.execute('create temp table mine as select range as id from range(3)');"
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
