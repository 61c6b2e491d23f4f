"""Branches that nobody works on any more are closed, and forgotten after a while."""

from uuid import uuid4

from contracts.runs import RunStatus
from infra.stacks.stack import Stack
from services.catalog.runs import domain
from services.runner.service import serve
from tests.running import RunOf, Surroundings, surroundings, table_name
from tests.waiting import eventually


async def test_branches_that_a_lost_runner_left_open_are_closed_and_swept(stack: Stack) -> None:
    settings = stack.settings
    async with surroundings(settings) as around:
        ended, going_on = RunOf(uuid4(), table_name(), uuid4(), []), RunOf(uuid4(), table_name(), uuid4(), [])
        for run in (ended, going_on):
            run.state = domain.replace(run.state, attempt=1)
            around.runs[run.id] = run
            await around.tables.create_branch(f"run-{run.id}-1")
        ended.state = domain.replace(ended.state, status=RunStatus.FAILED)
        await around.tables.create_branch(f"drop-{uuid4()}")

        async with serve(settings):
            await eventually(lambda: around.tables.is_closed(f"run-{ended.id}-1"), within=60)
            assert await around.open_branches(going_on) == [f"run-{going_on.id}-1"]

        async with serve(settings.model_copy(update={"nessie_orphan_branch_max_age_hours": 0})):
            await eventually(lambda: _is_gone(around, f"run-{ended.id}-1"), within=60)
            assert await around.open_branches(going_on) == [f"run-{going_on.id}-1"]


async def _is_gone(around: Surroundings, branch: str) -> bool:
    return await around.tables.branches(branch) == []
