"""Whatever is killed, whenever: each file's rows are in the table exactly once, no run is stuck, no letter is dead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from infra.stacks.stack import Stack
from shared.settings import Settings
from tests.client import Client, client, unique
from tests.processes import ServiceProcess, separate
from tests.stacks import StackIn
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

SERVICES = ("catalog", "ingest", "query", "runner", "scheduler", "trigger", "gateway")
FILES = 30


def impatient(settings: Settings) -> Settings:
    """What waits for minutes in real life waits for seconds here."""
    return settings.model_copy(
        update={
            "run_lease_seconds": 3.0,
            "run_heartbeat_seconds": 1.0,
            "run_silence_seconds": 8.0,
            "sweep_interval_seconds": 3.0,
            "tick_interval_seconds": 2.0,
            "runner_workers": 2,
        }
    )


@dataclass(frozen=True)
class Platform:
    """All services as processes of their own."""

    stack: Stack
    processes: dict[str, ServiceProcess]
    user: Client


@pytest.fixture(scope="module")
async def platform(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(stack_in(tmp_path_factory.mktemp("chaos")))
        settings = impatient(stack.settings)
        logs = tmp_path_factory.mktemp("logs")
        processes = await exits.enter_async_context(separate(settings, *SERVICES, logs=logs))
        user = await exits.enter_async_context(client(settings, f"http://127.0.0.1:{settings.gateway_port}"))
        await eventually(lambda: user.get("/pipelines"), within=60)
        yield Platform(stack, dict(zip(SERVICES, processes, strict=True)), user)


async def pipeline_over(user: Client) -> tuple[str, str]:
    zone = await user.zone(unique("orders"))
    pipeline = await user.pipeline(
        f"default.bronze.{zone}",
        f"select id::bigint as id from read_csv({{{{ landing_zone('{zone}', only='new') }}}}, header = true)",
        config="merge_strategy: append_only\n",
        whole="select id from {{ this }} where id is null",
    )
    await user.trigger(pipeline, "landing_zone_upload", {"namespace": "default", "zone_name": zone})
    return zone, pipeline


async def drop(user: Client, zone: str, number: int) -> None:
    """Put a file, as a client does that does not give up."""

    async def put() -> bool:
        await user.drop(zone, f"{number}.csv", f"id\n{number}\n")
        return True

    await eventually(put, within=60)


async def everything_arrived_once(user: Client, pipeline: str, files: int) -> None:
    async def rows() -> bool:
        found = await user.query(f"select id, count(*) as n from {pipeline} group by id order by id")
        return [(int(row["id"]), int(row["n"])) for row in found] == [(number, 1) for number in range(files)]

    await eventually(rows, within=120)

    async def none_is_open() -> bool:
        return all(run["finished_at"] for run in await user.runs(pipeline))

    await eventually(none_is_open, within=60)
    assert await user.dead_letters() == []


async def with_kills(platform: Platform, kill: Callable[[], Awaitable[None]]) -> None:
    """Let files arrive while something is killed, three times."""
    zone, pipeline = await pipeline_over(platform.user)

    for third in range(3):
        async with asyncio.TaskGroup() as tasks:
            for number in range(third * FILES // 3, (third + 1) * FILES // 3):
                tasks.create_task(drop(platform.user, zone, number))
            tasks.create_task(kill())

    await everything_arrived_once(platform.user, pipeline, FILES)


@pytest.mark.parametrize("service", ["runner", "catalog", "trigger", "ingest"])
async def test_a_service_is_killed_while_files_arrive(platform: Platform, service: str) -> None:
    async def kill() -> None:
        await platform.processes[service].kill()
        await platform.processes[service].start()

    await with_kills(platform, kill)


@pytest.mark.parametrize("server", ["nats", "postgres", "seaweedfs"])
async def test_a_server_is_killed_while_files_arrive(platform: Platform, server: str) -> None:
    async def kill() -> None:
        await platform.stack.kill(server)
        await platform.stack.until_ready(server)

    await with_kills(platform, kill)
