"""The run path: request → started → finished, beside the floor; runs a second; a put → its run."""

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from bench.figures import milliseconds
from bench.floor import Floor, csv_text
from bench.platform import Platform
from contracts.names import Qualified
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from tests.client import Client

ONE_ROW = "select 1 as id, 'one' as name"
UNIQUE = "select id from {this} group by id having count(*) > 1"
POSITIVE = "select id from {this} where amount < 0"
RUNS = 30
PHASES = ("branch", "compile", "write", "quality", "merge")


@dataclass(frozen=True)
class Timed:
    """One run, in seconds from its request."""

    started: float
    finished: float
    phases: dict[str, float]
    """How long each phase took."""

    @property
    def around(self) -> float:
        """What is left: request, claim, report and end, with their messages and commits."""
        # The branch is made while a process compiles.
        at_once = min(self.phases["branch"], self.phases["compile"])
        return self.finished - sum(self.phases.values()) + at_once


@dataclass(frozen=True)
class RunPath:
    """Rows of two tables: how long runs take, and where that time goes."""

    latencies: list[list[str]]
    profiles: list[list[str]]


async def latency(platform: Platform) -> RunPath:
    """Median and p99 of one run at a time, beside the floor, and what they are made of."""
    user, settings = platform.user, platform.stack.settings
    zone = await user.zone("bench_orders")
    await user.drop(zone, "orders.csv", csv_text())
    csv_sql = f"select * from read_csv('s3://{settings.s3_bucket}/default/landing/{zone}/orders.csv')"
    tests = {name: text.replace("{this}", "{{ this }}") for name, text in (("unique", UNIQUE), ("positive", POSITIVE))}
    one = await user.pipeline("default.bronze.bench_one", ONE_ROW)
    csv = await user.pipeline(
        "default.bronze.bench_csv", f"select * from read_csv({{{{ landing_zone('{zone}') }}}})", **tests
    )
    figures = RunPath([], [])
    async with lakehouse(settings, "runner") as port:
        with catalogs(settings, "runner") as catalog:
            floor = Floor(settings, port, catalog)
            for label, pipeline, sql, checks in (
                ("one row", one, ONE_ROW, []),
                ("10 000-row CSV, two tests", csv, csv_sql, [UNIQUE, POSITIVE]),
            ):
                runs = await _runs(platform, pipeline)
                by_hand = [await floor.run(Qualified.parse(f"{pipeline}_floor"), sql, checks) for _ in range(RUNS)][3:]
                started, finished = [run.started for run in runs], [run.finished for run in runs]
                ratio = f"{median(finished) / median(by_hand):.2f}"
                figures.latencies.append(
                    [label, milliseconds(started), milliseconds(finished), milliseconds(by_hand), ratio]
                )
                figures.profiles.append([label, *_profile(runs)])
    return figures


async def _runs(platform: Platform, pipeline: str) -> list[Timed]:
    timed = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run_id = await platform.user.run(pipeline)
        finished = await platform.heard.when("run.finished", run_id) - begun
        started = await platform.heard.when("run.started", run_id) - begun
        run = await platform.user.succeeded(run_id)
        phases = {phase["name"]: phase["duration_ms"] / 1000 for phase in run["phase_profiles"]}
        timed.append(Timed(started, finished, phases))
    return timed[3:]


def _profile(runs: list[Timed]) -> list[str]:
    """Medians of the phases, and of what is around them."""
    medians = [median(run.phases.get(name, 0.0) for run in runs) for name in PHASES]
    return [f"{seconds * 1000:.0f}" for seconds in (*medians, median(run.around for run in runs))]


async def throughput(platform: Platform, workers: int) -> list[str]:
    """Runs a second when 40 runs of 40 pipelines are asked for at once."""
    names = [f"default.silver.bench_{workers}_{number}" for number in range(40)]
    for name in names:
        await platform.user.pipeline(name, ONE_ROW)
    rates = []
    for _ in range(3):
        begun = time.perf_counter()
        run_ids = await asyncio.gather(*(platform.user.run(name) for name in names))
        ended = [await platform.heard.when("run.finished", run_id) for run_id in run_ids]
        rates.append(len(names) / (max(ended) - begun))
    return [str(workers), f"{median(rates):.1f}"]


async def put_to_started(platform: Platform) -> list[list[str]]:
    """From a put straight into the bucket to the start of the run that reads the file."""
    user = platform.user
    zone = await user.zone("bench_puts")
    pipeline = await user.pipeline(
        "default.bronze.bench_puts",
        f"select * from read_csv({{{{ landing_zone('{zone}', only='new') }}}})",
        config="merge_strategy: append_only\n",
    )
    await user.trigger(pipeline, "landing_zone_upload", {"namespace": "default", "zone_name": zone})
    silver = await _fed_by(user, "default.silver.bench_puts", "bronze.bench_puts")
    gold = await _fed_by(user, "default.gold.bench_puts", "silver.bench_puts")
    starts, ends = [], []
    for number in range(RUNS):
        known = len(platform.heard.bodies)
        begun = time.perf_counter()
        await user.drop(zone, f"{number}.csv", "id,amount\n1,2\n")
        starts.append(await _next(platform, "run.started", pipeline, known) - begun)
        await _next(platform, "run.finished", silver, known)
        ends.append(await _next(platform, "run.finished", gold, known) - begun)
    return [
        ["put → `run.started`", milliseconds(starts[3:])],
        ["put → `run.finished` of the gold table, two triggers away", milliseconds(ends[3:])],
    ]


async def _fed_by(user: Client, pipeline: str, source: str) -> str:
    """A pipeline that runs whenever another one succeeded."""
    layer, name = source.split(".")
    await user.pipeline(pipeline, f"select count(*) as n from {{{{ ref('{source}') }}}}")
    await user.trigger(pipeline, "pipeline_success", {"namespace": "default", "layer": layer, "pipeline": name})
    return pipeline


async def _next(platform: Platform, event: str, pipeline: str, known: int) -> float:
    async with asyncio.timeout(60):
        while True:
            for subject, when, body in platform.heard.bodies[known:]:
                if subject == event and body["pipeline"] == pipeline:
                    return when
            platform.heard.changed.clear()
            await platform.heard.changed.wait()
