"""The data path: ten million rows to an Iceberg table beside DuckDB's own COPY to the same bucket."""

import asyncio
import os
import resource
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import psutil

from bench.floor import scale_sql
from bench.platform import Platform
from shared.duckdb_engine import connect
from shared.settings import Settings

ROWS = 10_000_000
TIMES = 3


async def data_path(platform: Platform) -> list[list[str]]:
    """Rows of seconds, peak memory and the ratio to COPY; the best of three each."""
    settings = platform.stack.settings
    pipeline = await platform.user.pipeline("default.bronze.bench_scale", scale_sql(ROWS))
    copied = [await asyncio.to_thread(_copy_apart, settings, number) for number in range(TIMES)]
    ours = [await _measured(platform, pipeline) for _ in range(TIMES)]
    best_copy, best_write, best_run = (
        min(seconds for seconds, _ in copied),
        min(write for write, _, _ in ours),
        min(run for _, run, _ in ours),
    )
    return [
        ["DuckDB COPY", f"{best_copy:.2f}", f"{max(peak for _, peak in copied) / 1e6:.0f}", "1"],
        ["phase `write`", f"{best_write:.2f}", "", f"{best_write / best_copy:.2f}"],
        [
            "whole run",
            f"{best_run:.2f}",
            f"{max(peak for *_, peak in ours) / 1e6:.0f}",
            f"{best_run / best_copy:.2f}",
        ],
    ]


async def _measured(platform: Platform, pipeline: str) -> tuple[float, float, int]:
    run_id = await platform.user.run(pipeline)
    peak = 0
    ended = asyncio.create_task(platform.user.ended(run_id, within=300))
    while not ended.done():
        peak = max(peak, max(_resident(one) for one in psutil.Process(platform.process.pid).children()))
        await asyncio.wait([ended], timeout=0.05)
    run = ended.result()
    write = next(phase["duration_ms"] for phase in run["phase_profiles"] if phase["name"] == "write")
    return write / 1000, run["duration_ms"] / 1000, peak


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _copy_apart(settings: Settings, number: int) -> tuple[float, int]:
    """COPY in a process of its own, to see what it alone takes."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_copy, args=(settings.environment(), number, there))
    process.start()
    seconds, peak = here.recv()
    process.join()
    return seconds, peak


def _copy(environment: dict[str, str], number: int, answer: Connection) -> None:
    os.environ.update(environment)
    settings = Settings()
    duckdb = connect(settings, "runner")
    duckdb.execute("set enable_progress_bar = false")
    begun = time.perf_counter()
    duckdb.execute(
        f"copy ({scale_sql(ROWS)}) to 's3://{settings.s3_bucket}/default/bronze/bench_copy/{number}.parquet' "
        "(format parquet, compression zstd)"
    )
    seconds = time.perf_counter() - begun
    answer.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
