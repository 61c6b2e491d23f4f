"""A run's memory is bounded, whatever the size of its result; what does not fit is spilled, and cleaned away."""

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.runs import ErrorKind, RunStatus
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.settings import Settings
from tests.running import Surroundings, surroundings
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(900)

LIMIT = 100_000_000
ROWS = 6_000_000
COLUMNS = ", ".join(f"(hash(range + {number}) >> 1)::bigint as c{number}" for number in range(8))
PROGRAMS = 350_000_000
"""What Python, PyIceberg and pyarrow have in memory, and the buffers that DuckDB does not count."""


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spill")


@pytest.fixture(scope="module")
async def around(stack: Stack, spill: Path) -> AsyncIterator[Surroundings]:
    settings: Settings = stack.settings.model_copy(update={"runner_workers": 1, "spill_directory": str(spill)})
    async with surroundings(settings) as around, serve(settings):
        yield around


def spilled(folder: Path) -> int:
    """Bytes in files of a folder, of which some may go at this moment."""
    size = 0
    for file in folder.rglob("*"):
        try:
            size += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return size


async def test_a_sorted_result_several_times_the_limit_is_written_with_bounded_memory(
    around: Surroundings, spill: Path
) -> None:
    run = await around.request(
        f"select {COLUMNS} from range({ROWS}) order by c0", config=f"memory_limit: {LIMIT // 1_000_000}MB"
    )
    most = await eventually(lambda: run.ended or spilled(spill), within=240)
    ended = await around.finished(run, within=480)

    assert ended.error is None
    assert (ended.status, ended.rows_written) == (RunStatus.SUCCESS, ROWS)
    assert isinstance(most, int), "nothing was spilled"
    [written] = [phase.metadata for phase in ended.phases if phase.name == "write"]
    assert written["bytes"] > 3 * LIMIT
    assert written["memory_peak_bytes"] < LIMIT + PROGRAMS < written["bytes"] + PROGRAMS
    assert await eventually(lambda: spilled(spill) == 0)
    assert await around.rows(run.pipeline, "select count(*) from t") == [(ROWS,)]


async def test_what_a_killed_process_has_spilled_is_cleaned_away(around: Surroundings, spill: Path) -> None:
    run = await around.request(
        f"select {COLUMNS} from range({100 * ROWS}) order by c0",
        config=f"memory_limit: {LIMIT // 1_000_000}MB",
    )
    assert await eventually(lambda: spilled(spill), within=240)

    await around.cancel(run)
    ended = await around.finished(run, within=60)

    assert ended.status is RunStatus.CANCELLED
    assert await eventually(lambda: spilled(spill) == 0)


async def test_a_process_that_fills_the_memory_beside_duckdb_is_killed_and_says_so(around: Surroundings) -> None:
    code = """
    # @memory_limit: 64MB
    def pipeline(ctx):
        held = []
        while True:
            held.append(bytearray(b"x" * 50_000_000))
    """
    run = await around.request(textwrap.dedent(code), path="pipeline.py")
    ended = await around.finished(run, within=120)

    assert ended.error_kind is ErrorKind.MEMORY
    assert (ended.error or "").startswith("memory_limit of 64 MB was used up in phase write: the process had ")
    assert run.reasons == ["delivery"]
