"""The warm pool has a process ready whatever becomes of those before it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from infra.stacks.stack import Stack
from services.runner.domain import FailureKind
from services.runner.frames import (
    AskLocations,
    Failed,
    Interrupt,
    Locations,
    Looked,
    Previewed,
    PreviewOrder,
    Validated,
    ValidationOrder,
)
from services.runner.pool import Pool, Process, ProcessLost, pool
from services.runner.watch import Allowance, Broken, watched
from shared.errors import Unavailable
from shared.lakehouse.connect import lakehouse
from tests.lives import command_of
from tests.plugging import install
from tests.waiting import eventually


@pytest.fixture
async def processes(stack: Stack) -> AsyncIterator[Pool]:
    settings = stack.settings.model_copy(update={"runner_workers": 1, "runner_recycle_runs": 2})
    async with lakehouse(stack.settings, "runner"), pool(settings) as processes:
        yield processes


async def work(process: Process) -> None:
    await process.send(ValidationOrder(pipeline="default.bronze.x", files={"pipeline.sql": "select 1"}))
    answer = await process.receive()
    assert isinstance(answer, Validated)
    assert answer.validation.valid


async def used(processes: Pool) -> int:
    async with processes.process() as process:
        await work(process)
        return process.pid


async def test_a_process_is_used_again_until_it_is_worn(processes: Pool) -> None:
    pids = [await used(processes) for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_process_has_its_share_of_the_machines_memory(processes: Pool) -> None:
    assert processes.memory_limit_bytes == int(psutil.virtual_memory().total * 0.6)


async def test_more_are_spawned_while_all_are_busy(processes: Pool) -> None:
    async with processes.process() as first, processes.process() as second:
        await work(second)
        await work(first)
        assert first.pid != second.pid


async def test_a_process_that_dies_while_it_waits_is_replaced(processes: Pool) -> None:
    pid = await used(processes)

    psutil.Process(pid).kill()
    await eventually(lambda: not psutil.pid_exists(pid))

    assert await used(processes) != pid


async def test_a_process_that_finds_no_strategies_says_what_to_do(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Found first, it stands for the installation: one of before there were any entry points.
    install(tmp_path, {"pyproject.toml": '[project]\nname = "rat-platform"\nversion = "0.0"\nentry-points = {}'})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async with pool(stack.settings) as processes:
        with pytest.raises(Unavailable, match=r"no entry points of rat\.strategies .* install .* rat-platform anew"):
            await used(processes)


@pytest.fixture
def others() -> set[psutil.Process]:
    """Processes of other pools, as a platform that several tests use has one."""
    return _processes()


async def test_a_process_that_dies_while_it_warms_up_is_replaced_for_whoever_waits_for_it(
    others: set[psutil.Process], processes: Pool
) -> None:
    [warming] = await eventually(lambda: _processes() - others)
    using = asyncio.create_task(used(processes))

    warming.kill()

    assert await using != warming.pid


def _processes() -> set[psutil.Process]:
    return {child for child in psutil.Process().children() if "services.runner.process" in command_of(child)}


async def test_a_process_that_dies_at_work_is_noticed_at_once_and_one_that_is_left_at_work_is_killed(
    processes: Pool,
) -> None:
    async with processes.process() as process:
        psutil.Process(process.pid).kill()
        with pytest.raises(ProcessLost, match="the process of the run was killed by SIGKILL"):
            await process.receive()

    with pytest.raises(RuntimeError, match="no more"):
        async with processes.process() as left:
            raise RuntimeError("no more")

    assert not psutil.pid_exists(left.pid)


async def test_a_process_that_reads_nothing_does_not_keep_those_waiting_who_stop_it(processes: Pool) -> None:
    much = {f"tests/quality/t{number}.sql": "select 1 -- " + "x" * 100_000 for number in range(20)}
    cancelled = asyncio.Event()
    allowance = Allowance(processes.memory_limit_bytes)

    async def converse(process: Process) -> None:
        await process.send(ValidationOrder(pipeline="default.bronze.x", files=much))

    async def stopped() -> int:
        async with processes.process() as process, asyncio.timeout(30):
            psutil.Process(process.pid).suspend()
            cancelled.set()
            with pytest.raises(Broken, match="cancelled on request"):
                await watched(process, converse(process), allowance, cancelled, lambda _line: None)
            process.is_spent = True
        return process.pid

    assert not psutil.pid_exists(await stopped())


async def test_a_process_has_no_secrets_in_its_environment(processes: Pool) -> None:
    async with processes.process() as process:
        environment = psutil.Process(process.pid).environ()
        await work(process)

    assert not [name for name in environment if name.startswith("RAT_")]


async def test_a_process_that_is_interrupted_stops_and_goes_on_to_the_next(processes: Pool) -> None:
    slow = "select count(*) from range(1000000000) a, range(1000) b where hash(a.range + b.range) % 7 = 1"

    async def said(process: Process, sql: str, until: str = "") -> Looked | Failed | Previewed:
        await process.send(PreviewOrder(pipeline="default.bronze.x", files={"pipeline.sql": sql}, limit=1))
        while True:
            match await process.receive():
                case Previewed(phase=phase) as part if phase is not None and phase.name == until:
                    return part
                case Looked() | Failed() as end:
                    return end
                case AskLocations(tables=tables):
                    await process.send(Locations(locations=dict.fromkeys(tables)))
                case _:
                    pass

    async with processes.process() as process:
        assert isinstance(await said(process, slow, "plan"), Previewed)

        stopping = asyncio.create_task(process.receive())
        while not stopping.done():
            # One that comes between two statements is of no consequence.
            await process.send(Interrupt())
            await asyncio.wait({stopping}, timeout=0.2)
        stopped = stopping.result()
        # One that comes when nothing goes on is of no consequence.
        await process.send(Interrupt())
        after = await said(process, "select 1 as id")

    assert isinstance(stopped, Failed)
    assert stopped.kind is FailureKind.CANCELLED
    assert isinstance(after, Looked)
