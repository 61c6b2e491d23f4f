"""The query service as a process of its own."""

import asyncio
from pathlib import Path

import psutil

from contracts.tables import RunSql
from infra.stacks.stack import Stack
from shared.lakehouse.connect import lakehouse
from tests.buses import playing
from tests.lives import command_of, has_ended
from tests.processes import ServiceProcess, separate
from tests.waiting import eventually


async def test_no_worker_outlives_its_service(stack: Stack, tmp_path: Path) -> None:
    bus = playing(stack.settings, "gateway")
    async with (
        lakehouse(stack.settings, "runner"),
        bus.running(),
        separate(stack.settings, "query", logs=tmp_path) as [service],
    ):
        [worker] = await eventually(lambda: workers_of(service))
        endless = RunSql(
            sql="select count(*) from range(1000000) a, range(1000000) b", inbox=bus.connection.new_inbox()
        )
        asking_in_vain = asyncio.create_task(bus.ask(endless, timeout=30))
        before = worker.cpu_times().user
        await eventually(lambda: worker.cpu_times().user > before + 0.2)

        await service.kill()

        await eventually(lambda: has_ended(worker))
        asking_in_vain.cancel()


def workers_of(service: ServiceProcess) -> list[psutil.Process]:
    return [child for child in service.children() if "services.query.worker" in command_of(child)]
