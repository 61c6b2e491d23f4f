"""The runner works on runs, over the real servers; the test is catalog and ingest."""

from collections.abc import AsyncIterator

import pytest

from contracts.runs import ErrorKind, RunStatus
from infra.embedded.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.running import Surroundings, surroundings, table_name
from tests.waiting import eventually


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(
        update={"runner_workers": 2, "run_lease_seconds": 3.0, "run_heartbeat_seconds": 1.0}
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
            "positive": "-- @severity: error\n-- @description: amounts are positive\nselect * from {{ this }} where amount <= 0",
        },
    )
    ended = await around.finished(run)

    assert ended.error is None
    assert ended.status is RunStatus.SUCCESS
    assert await around.rows(run.pipeline, "select count(*), sum(amount) from t") == [(4, 100.5)]
    assert (ended.rows_written, ended.files_read, ended.quality.passed) == (4, 3, 2)
    assert [phase.name for phase in ended.phases] == ["branch", "compile", "write", "quality", "merge"]
    print([(p.name, p.duration_ms, p.metadata) for p in ended.phases])
    print(await around.code.get(ended.logs_key))
