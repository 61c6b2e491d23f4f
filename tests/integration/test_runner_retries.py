"""What a run tries again: what a server that was reached would not do now, and nothing else."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from contracts.runs import ErrorKind, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.refusing import Door, behind_a_door
from tests.running import RunOf, Surroundings, surroundings

HASTE = "retry_delay_seconds: 0.2\n"


@dataclass
class World:
    """A runner that reaches the object store through a door."""

    around: Surroundings
    door: Door

    def shut(self, method: str, pattern: str, *, status: int = 503, code: bytes = b"SlowDown") -> None:
        """Refuse what is asked of such keys until it is opened again."""
        self.door.status, self.door.code = status, code
        self.door.refused.clear()
        self.door.refuses = lambda asked, path: asked in method.split("|") and re.search(pattern, path) is not None

    def shut_until(self, run: RunOf, attempt: int, method: str, pattern: str) -> None:
        """Refuse it until the run has so many attempts behind it."""
        self.shut(method, pattern)
        is_shut = self.door.refuses
        self.door.refuses = lambda asked, path: run.state.attempt <= attempt and is_shut(asked, path)

    def open(self) -> None:
        self.door.refuses = lambda method, path: False


@pytest.fixture(scope="module")
async def world(stack: Stack) -> AsyncIterator[World]:
    settings: Settings = stack.settings.model_copy(update={"runner_workers": 1})
    async with behind_a_door(settings) as (through, door), surroundings(settings) as around, serve(through):
        yield World(around, door)


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        pytest.param("GET|HEAD", r"/landing/tried/", id="a file is read"),
        pytest.param("PUT|POST", r"/bronze/t_\w+/.*data/", id="rows are written"),
        pytest.param("PUT", r"/bronze/t_\w+/.*metadata/", id="metadata is written"),
    ],
)
async def test_what_the_store_would_not_do_now_is_tried_again(world: World, method: str, pattern: str) -> None:
    around = world.around
    if "tried" not in around.zones:
        await around.upload("tried", "a.csv", "id\n1\n2\n")
    world.shut(method, pattern)

    run = await around.request("select * from {{ landing_zone('tried') }}", config=HASTE)
    world.shut_until(run, 1, method, pattern)
    ended = await around.finished(run, within=120)
    world.open()

    assert ended.error is None
    assert (ended.status, ended.attempt, run.reasons) == (RunStatus.SUCCESS, 2, ["delivery", "retry"])
    assert world.door.refused
    assert any("the next one follows in 0.2 s" in line.message for line in ended.last_log_lines)
    assert await around.rows(run.pipeline, "from t order by id") == [(1,), (2,)]
    assert await around.merges(run) == 1


async def test_an_author_says_how_often_it_is_tried_and_the_pauses_double(world: World) -> None:
    around = world.around
    await around.upload("refused", "a.csv", "id\n1\n")
    world.shut("GET|HEAD", "/landing/refused/")

    run = await around.request("select * from {{ landing_zone('refused') }}", config=HASTE + "max_retries: 2")
    ended = await around.finished(run, within=120)
    world.open()

    assert (ended.status, ended.error_kind, ended.attempt) == (RunStatus.FAILED, ErrorKind.UNAVAILABLE, 3)
    assert (ended.error or "").startswith("tried 3 times: ")
    assert "503" in (ended.error or "")
    assert run.reasons == ["delivery", "retry", "retry"]
    pauses = [re.search(r"follows in (\S+) s", line.message) for line in ended.last_log_lines]
    assert [found[1] for found in pauses if found] == ["0.2", "0.4"]
    assert await around.open_branches(run) == []


async def test_what_the_store_forbids_is_not_tried_again(world: World) -> None:
    around = world.around
    await around.upload("forbidden", "a.csv", "id\n1\n")
    world.shut("GET|HEAD", "/landing/forbidden/", status=403, code=b"AccessDenied")

    run = await around.request("select * from {{ landing_zone('forbidden') }}", config=HASTE)
    ended = await around.finished(run, within=120)
    world.open()

    assert (ended.status, run.reasons) == (RunStatus.FAILED, ["delivery"])


async def test_neither_a_wrong_query_nor_a_failed_test_is_tried_again(world: World) -> None:
    around = world.around

    wrong = await around.request("select missing from (select 1 as id)", config=HASTE)
    bad = await around.request("select 1 as id", config=HASTE, tests={"none": "select * from {{ this }}"})
    ended = [await around.finished(run, within=60) for run in (wrong, bad)]

    assert [one.error_kind for one in ended] == [ErrorKind.SQL, ErrorKind.QUALITY]
    assert (wrong.reasons, bad.reasons) == (["delivery"], ["delivery"])
