"""The runner as a process of its own: told to stop, and killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.runs import RunStatus
from infra.stacks.stack import Stack
from shared.settings import Settings
from tests.lives import has_ended
from tests.processes import separate
from tests.running import RunOf, Surroundings, surroundings
from tests.waiting import eventually

SLOW = "select count(*) as n from range({{ var('n') }}) a, range(1000) b where hash(a.range + b.range) % 7 = 1"


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    # With so long a lease, only what is given back comes again while the test waits.
    return stack.settings.model_copy(update={"runner_workers": 1, "run_lease_seconds": 600.0})


@pytest.fixture
async def around(settings: Settings) -> AsyncIterator[Surroundings]:
    async with surroundings(settings) as around:
        yield around


def phases(run: RunOf) -> list[str]:
    return [event.phase.name for event in run.progress if event.phase is not None]


async def test_a_runner_that_is_told_to_stop_gives_its_run_back(
    around: Surroundings, settings: Settings, tmp_path: Path
) -> None:
    run = await around.request(SLOW, parameters={"n": 10**9})
    async with separate(settings, "runner", logs=tmp_path) as [runner]:
        await eventually(lambda: "compile" in phases(run))
        run.parameters = {"n": 1}

        await runner.stop()
        await runner.start()
        ended = await around.finished(run)

    assert (ended.status, ended.attempt) == (RunStatus.SUCCESS, 2)
    assert await around.merges(run) == 1


async def test_the_processes_of_a_runner_that_is_killed_end_with_it_whatever_they_do(
    around: Surroundings, settings: Settings, tmp_path: Path
) -> None:
    run = await around.request(SLOW, parameters={"n": 10**9})
    async with separate(settings, "runner", logs=tmp_path) as [runner]:
        await eventually(lambda: "compile" in phases(run))
        children = runner.children()

        await runner.kill()

        assert children
        await eventually(lambda: all(has_ended(child) for child in children))
        run.state = run.state.__class__(status=RunStatus.CANCELLED)
