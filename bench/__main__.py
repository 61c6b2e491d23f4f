"""`python -m bench [--write]`: measure everything; with `--write`, put the tables into `docs/benchmarks.md`."""

import asyncio
import os
import sys
from pathlib import Path

import psutil

from bench.data_path import data_path
from bench.figures import table
from bench.idle import idle
from bench.platform import platform
from bench.run_path import latency, put_to_started, throughput

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: written by `python -m bench --write` -->", "<!-- end of figures -->"


async def measure() -> str:
    """Everything, as Markdown."""
    memory = psutil.virtual_memory().total / 2**30
    parts = [f"Measured with {os.cpu_count()} cores and {memory:.0f} GiB, everything on one machine."]
    async with platform() as two:
        parts += ["### Idle", await _shown(idle(two))]
        parts += ["### Run path", await _shown(latency(two)), await _shown(put_to_started(two))]
        with_two = await throughput(two, 2)
        parts += ["### Data path", await _shown(data_path(two))]
    async with platform(workers=1) as one:
        with_one = await throughput(one, 1)
    rates = table(["workers", "runs a second"], [with_one, with_two])
    parts += ["### 40 runs of 40 pipelines, requested at once", rates]
    return "\n\n".join(parts)


async def _shown(measuring) -> str:  # type: ignore[no-untyped-def]
    text: str = await measuring
    print(text, end="\n\n", flush=True)
    return text


def main() -> None:
    """Measure, print, and write if asked to."""
    figures = asyncio.run(measure())
    print(figures)
    if "--write" in sys.argv[1:]:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}")


if __name__ == "__main__":
    main()
