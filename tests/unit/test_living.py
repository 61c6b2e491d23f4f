"""A process ends when it is told to, whatever a library does in it."""

import subprocess
import sys

DEAF = """
import asyncio
from contextlib import suppress
from infra.services import live

async def deaf():
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()

async def main():
    left.append(asyncio.create_task(deaf()))
    await asyncio.sleep(0)

left = []
live(main)
"""


def test_a_process_ends_though_a_task_that_is_left_loses_its_cancellation() -> None:
    subprocess.run([sys.executable, "-c", DEAF], check=True, timeout=60)
