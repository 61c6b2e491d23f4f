"""The key of the object store that a run has goes on with it, and where none is made that is told."""

import pytest

from contracts.runs import RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.running import surroundings


@pytest.fixture
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(update={"runner_workers": 1})


OUTLIVES = """
import time
before = duckdb.sql("from duckdb_secrets()").fetchall()
while duckdb.sql("from duckdb_secrets()").fetchall() == before:
    time.sleep(0.1)
result = pa.table({"id": [1]})
"""


async def test_a_run_that_outlives_its_key_is_given_another(settings: Settings) -> None:
    short = settings.model_copy(update={"s3_run_key_seconds": 2.0})
    async with surroundings(short) as around, serve(short):
        run = await around.request(OUTLIVES, path="pipeline.py")
        ended = await around.finished(run, within=90)

        assert (ended.status, ended.error) == (RunStatus.SUCCESS, None)
        assert await around.rows(run.pipeline) == [(1,)]


async def test_a_store_that_makes_no_keys_is_told_in_the_log(settings: Settings) -> None:
    without = settings.model_copy(update={"s3_run_role": None})
    async with surroundings(without) as around, serve(without):
        run = await around.request("select 1 as id")
        ended = await around.finished(run, within=90)

        assert ended.error is None
        message = "the process of this run uses the object store with the runner's own key: s3_run_role is not set"
        assert ("warning", message) in [(line.level, line.message) for line in ended.last_log_lines]
