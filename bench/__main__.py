"""`python -m bench [STACK…] [--appends=N] [--write]`: measure stacks.

With `--write`, put the tables into `docs/benchmarks.md`; with `--only-appends`, measure appends and nothing else.
"""

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psutil

from bench.appends import EDGE, appends
from bench.commits import TIMES, commits
from bench.data_path import ROWS, data_path
from bench.figures import show, table
from bench.idle import idle
from bench.platform import platform
from bench.run_path import PHASES, latency, put_to_started, throughput
from infra.stacks.table import STACKS

APPENDS = 500


@dataclass
class Section:
    """One table: the same rows of every stack."""

    title: str
    header: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, stack: str, rows: Iterable[list[str]]) -> None:
        """Take what was measured on a stack, and show it."""
        for row in rows:
            self.rows.append([stack, *row])
            print(f"{self.title}: {' | '.join([stack, *row])}", flush=True)

    def markdown(self) -> str:
        """The heading and the table."""
        return f"### {self.title}\n\n{table(['stack', *self.header], self.rows)}"


def _of_appends() -> Section:
    header = ["runs", f"first {EDGE}, ms", f"last {EDGE}, ms", "ratio", "slowest, ms", "runs with a second attempt"]
    return Section("Runs that append one row to one table, one after the other: medians", header)


async def measure_appends(stacks: Sequence[str], count: int) -> str:
    """Appends only, as Markdown."""
    section = _of_appends()
    for stack in stacks:
        async with platform(stack, workers=2) as two:
            section.add(stack, await appends(two, count))
    return section.markdown()


async def measure(stacks: Sequence[str], count_of_appends: int) -> str:
    """Everything, as Markdown; what is measured of one stack stands beside what is measured of the other."""
    rest = "around it"
    sections = (
        paths := Section(
            "Run path: median / p99 in ms",
            ["pipeline", "request → started", "request → finished", "floor, by hand", "ratio"],
        ),
        profiles := Section("Where the time of a run goes: medians in ms", ["pipeline", *PHASES, rest]),
        written := Section(
            f"{TIMES} commits to one table: median / p99 in ms", ["commit", "ours", "PyIceberg's", "ratio"]
        ),
        puts := Section("One small file", ["from → to", "median / p99 in ms"]),
        rates := Section("40 runs of 40 pipelines, requested at once", ["workers", "runs a second"]),
        scales := Section(f"Data path: {ROWS:,} rows × 5 columns", ["what", "seconds", "peak memory, MB", "ratio"]),
        growing := _of_appends(),
        quiet := Section("Idle", ["process", "how many", "PSS, MB", "CPU, % of a core"]),
    )
    for stack in stacks:
        async with platform(stack, workers=2) as two:
            quiet.add(stack, await idle(two))
            figures = await latency(two)
            paths.add(stack, figures.latencies)
            profiles.add(stack, figures.profiles)
            written.add(stack, await commits(two.stack.settings))
            puts.add(stack, await put_to_started(two))
            rates.add(stack, [await throughput(two, 2)])
            scales.add(stack, await data_path(two))
            growing.add(stack, await appends(two, count_of_appends))
        async with platform(stack, workers=1) as one:
            rates.add(stack, [await throughput(one, 1)])
    memory = psutil.virtual_memory().total / 2**30
    machine = f"Measured with {os.cpu_count()} cores and {memory:.0f} GiB, everything on one machine."
    return "\n\n".join([machine, *(section.markdown() for section in sections)])


def main() -> None:
    """Measure, print, and write if asked to."""
    asked = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if unknown := [stack for stack in asked if stack not in STACKS]:
        sys.exit(f"no stack is called {unknown[0]!r}; there are {', '.join(STACKS)}")
    given = [argument.removeprefix("--appends=") for argument in sys.argv[1:] if argument.startswith("--appends=")]
    count = int(given[-1]) if given else APPENDS
    if "--only-appends" in sys.argv[1:]:
        print(f"\n{asyncio.run(measure_appends(asked or list(STACKS), count))}")
        return
    figures = asyncio.run(measure(asked or list(STACKS), count))
    show("python -m bench", figures)


if __name__ == "__main__":
    main()
