"""Whatever is away for a while: nothing is lost, nothing comes twice, and all goes on by itself when it is back."""

import asyncio

import pytest

from tests.dying import FILES, Platform, drop, everything_arrived_once, pipeline_over, with_kills
from tests.marks import bus
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)


async def test_a_server_is_away_while_files_arrive(platform: Platform, victim: str, absence: float) -> None:
    zone, pipeline = await pipeline_over(platform.user)

    async with asyncio.TaskGroup() as tasks:

        def arrive(third: int) -> None:
            for number in range(third * FILES // 3, (third + 1) * FILES // 3):
                tasks.create_task(drop(platform.user, zone, number, within=absence + 60))

        arrive(0)
        async with platform.stack.away(victim):
            arrive(1)
            await asyncio.sleep(absence)
        arrive(2)

    await everything_arrived_once(platform.user, pipeline, FILES)


async def test_the_stream_of_notifications_is_deleted_while_files_arrive(platform: Platform) -> None:
    async def delete() -> None:
        async with bus(platform.stack) as client:
            await eventually(lambda: client.jetstream().delete_stream("BUCKET"))

    await with_kills(platform, delete)
