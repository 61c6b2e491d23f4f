"""Run after run appends a row to one table: whether a run takes as long at the end as at the beginning."""

import time
from statistics import median
from typing import Final

from bench.platform import Platform

ONE_ROW: Final = "-- @merge_strategy: append_only\nselect 1 as id, '{{ run_id }}' as name"
EDGE: Final = 20
"""So many runs at the beginning are compared with as many at the end."""


async def appends(platform: Platform, count: int) -> list[list[str]]:
    """The row of the table: medians of the first runs and of the last ones, and what is there in the end."""
    user, heard = platform.user, platform.heard
    name = await user.pipeline("default.bronze.bench_appends", ONE_ROW)
    seconds: list[float] = []
    conflicts = 0
    for _ in range(count):
        began = time.perf_counter()
        run_id = await user.run(name)
        seconds.append(await heard.when("run.finished", run_id) - began)
        conflicts += (await user.succeeded(run_id))["attempt"] > 1
    edge = min(EDGE, max(count // 2, 1))
    first, last = median(seconds[:edge]), median(seconds[-edge:])
    return [
        [
            str(count),
            f"{first * 1000:.0f}",
            f"{last * 1000:.0f}",
            f"{last / first:.2f}",
            f"{max(seconds) * 1000:.0f}",
            str(conflicts),
        ]
    ]
