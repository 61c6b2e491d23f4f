"""The data path: rows to an Iceberg table beside DuckDB's own COPY to the same bucket.

`python -m bench.data_path [ROWS] [STACK] [--write]` measures so many rows of five columns (100 million take minutes),
and as many values in 500 columns and in nested ones.
"""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from uuid import uuid4

import psutil

from bench.figures import show, table
from bench.floor import scale_sql
from bench.platform import Platform, platform
from infra.stacks.table import STACKS
from shared.duckdb_engine import connect
from shared.settings import Settings

ROWS = 10_000_000
TIMES = 3
"""That each way is tried."""
TIMES_OF_MORE = 2
"""Likewise, with more than `ROWS` rows."""

COLUMNS = 5
WIDE = 500
SECONDS = 300
"""To wait for a run of `ROWS` rows; more rows may take as much longer."""


@dataclass(frozen=True)
class Shape:
    """What is written: a query, and what its rows are like."""

    name: str
    rows: int
    sql: str


def shapes(rows: int) -> Iterator[Shape]:
    """So many rows of five columns, and about as many values in wide and in nested rows."""
    yield Shape(f"{rows:,} rows × {COLUMNS} columns", rows, scale_sql(rows))
    wide = max(rows * COLUMNS // WIDE, 1)
    yield Shape(f"{wide:,} rows × {WIDE} columns", wide, wide_sql(wide))
    nested = max(rows // COLUMNS, 1)
    yield Shape(f"{nested:,} rows with a list of structs and a map", nested, nested_sql(nested))


def wide_sql(rows: int) -> str:
    """A query of 500 columns: whole numbers, fractions and texts by turns."""
    values = [
        "(hash(range + {}) % 1000000)::bigint",
        "(hash(range + {}) % 100000) / 100",
        "'v' || hash(range + {}) % 1000",
    ]
    columns = [f"{values[place % len(values)].format(place)} as c{place}" for place in range(WIDE)]
    return f"select {', '.join(columns)} from range({rows})"


def nested_sql(rows: int) -> str:
    """A query of a list of structs and a map in each row."""
    return f"""
select range as id,
  list_transform(range((hash(range) % 8)::bigint), lambda x:
    {{'item': x, 'price': (hash(range + x) % 1000) / 4}}) as items,
  map(['source', 'day'], ['s' || hash(range) % 100, 'd' || range % 2000]) as tags
from range({rows})
"""


async def data_path(platform: Platform, rows: int = ROWS) -> list[list[str]]:
    """Rows of seconds, peak memory and the ratio to COPY, for five columns."""
    return await beside_copy(platform, next(shapes(rows)))


async def beside_copy(platform: Platform, shape: Shape, times: int = TIMES) -> list[list[str]]:
    """Rows of seconds, peak memory and the ratio to COPY; the best of so many times each."""
    settings = platform.stack.settings
    pipeline = await platform.user.pipeline(f"default.bronze.bench_{uuid4().hex[:8]}", shape.sql)
    copied, ours = [], []
    # By turns: what a machine gives differs from minute to minute.
    for _ in range(times):
        copied.append(await asyncio.to_thread(_copy_apart, settings, shape.sql))
        ours.append(await _measured(platform, pipeline, SECONDS * max(shape.rows // ROWS, 1)))
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


async def _measured(platform: Platform, pipeline: str, within: float) -> tuple[float, float, int]:
    run_id = await platform.user.run(pipeline)
    peak = 0
    ended = asyncio.create_task(platform.user.ended(run_id, within=within))
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


def _copy_apart(settings: Settings, sql: str) -> tuple[float, int]:
    """COPY in a process of its own, to see what it alone takes."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_copy, args=(settings.environment(), sql, there))
    process.start()
    seconds, peak = here.recv()
    process.join()
    return seconds, peak


def _copy(environment: dict[str, str], sql: str, answer: Connection) -> None:
    os.environ.update(environment)
    settings = Settings()
    duckdb = connect(settings, "runner")
    duckdb.execute("set enable_progress_bar = false")
    begun = time.perf_counter()
    duckdb.execute(
        f"copy ({sql}) to 's3://{settings.s3_bucket}/default/bronze/bench_copy/{uuid4()}.parquet' "
        "(format parquet, compression zstd)"
    )
    seconds = time.perf_counter() - begun
    answer.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


async def main() -> None:
    """Measure and print."""
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    stacks = [argument for argument in sys.argv[1:] if argument in STACKS] or ["embedded"]
    rows = int(numbers[0]) if numbers else ROWS
    times = TIMES if rows <= ROWS else TIMES_OF_MORE
    for stack in stacks:
        async with platform(stack, workers=1) as one:
            found = []
            for shape in shapes(rows):
                for row in await beside_copy(one, shape, times):
                    found.append([shape.name, *row])
                    print(" | ".join(found[-1]), flush=True)
        header = ["what", "how", "seconds", "peak memory, MB", "ratio"]
        figures = f"### Data path beside COPY, {stack}\n\n{table(header, found)}"
        show(f"python -m bench.data_path {rows} {stack}", figures)


if __name__ == "__main__":
    asyncio.run(main())
