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
    parts = [_shown(f"Measured with {os.cpu_count()} cores and {memory:.0f} GiB, everything on one machine.")]
    async with platform() as two:
        parts += [_shown("### Idle"), _shown(await idle(two))]
        parts += [_shown("### Run path"), _shown(await latency(two)), _shown(await put_to_started(two))]
        with_two = await throughput(two, 2)
        parts += [_shown("### Data path"), _shown(await data_path(two))]
    async with platform(workers=1) as one:
        with_one = await throughput(one, 1)
    rates = table(["workers", "runs a second"], [with_one, with_two])
    parts += [_shown("### 40 runs of 40 pipelines, requested at once"), _shown(rates)]
    return "\n\n".join(parts)


def _shown(text: str) -> str:
    print(text, end="\n\n", flush=True)
    return text


def main() -> None:
    """Measure, print, and write if asked to."""
    figures = asyncio.run(measure())
    if "--write" in sys.argv[1:]:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}")


if __name__ == "__main__":
    main()
