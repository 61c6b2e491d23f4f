"""A platform whose parts die while files arrive, and what has to be true in the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.stacks.stack import Stack
from shared.settings import Settings
from tests.client import Client, client, unique
from tests.processes import ServiceProcess, separate
from tests.waiting import ASKING_SECONDS, eventually

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


@asynccontextmanager
async def platform_on(stack: Stack, logs: Path) -> AsyncIterator[Platform]:
    """Run every service in a process of its own, on these servers."""
    settings = impatient(stack.settings)
    async with AsyncExitStack() as exits:
        processes = await exits.enter_async_context(separate(settings, *SERVICES, logs=logs))
        user = await exits.enter_async_context(client(settings, f"http://127.0.0.1:{settings.gateway_port}"))
        await eventually(lambda: user.get("/pipelines"), within=120, pause=ASKING_SECONDS)
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


async def drop(user: Client, zone: str, number: int, within: float = 60) -> None:
    """Put a file, as a client does that does not give up."""

    async def put() -> bool:
        await user.drop(zone, f"{number}.csv", f"id\n{number}\n")
        return True

    await eventually(put, within=within, pause=ASKING_SECONDS)


async def everything_arrived_once(user: Client, pipeline: str, files: int) -> None:
    async def rows() -> bool:
        found = await user.query(f"select id, count(*) as n from {pipeline} group by id order by id")
        return [(int(row["id"]), int(row["n"])) for row in found] == [(number, 1) for number in range(files)]

    await eventually(rows, within=120, pause=ASKING_SECONDS)

    async def none_is_open() -> bool:
        return all(run["finished_at"] for run in await user.runs(pipeline))

    await eventually(none_is_open, within=60, pause=ASKING_SECONDS)
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
