"""The acts of the demo. Every number that is shown is read from the platform."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from contracts.landing import FileLanded
from contracts.reports import Severity
from contracts.runs import ErrorKind, RunFinished, RunStarted, RunStatus
from contracts.tables import TableChanged
from contracts.triggers import Decision, TriggerDecided
from infra.connection import Connection
from infra.demo.flights import FLIGHTS, ROWS, SPOILT_ROWS, Flights, read_flights, spoilt
from infra.demo.screen import Screen, number
from infra.demo.user import User, user_at, user_of
from infra.demo.watch import Watch, watching, watching_over_http
from shared.errors import Conflict, RatError

NAMESPACE: Final = "nyc"
PIPELINES: Final = Path(__file__).parent
ZONES: Final = (*ROWS, "flights")
_COOLDOWN_SECONDS: Final = 1
_FOLLOWERS: Final = {"bronze.flights": 1, "silver.flights": 1}
"""Pipeline → triggers that hear of its success."""
_GOLD: Final = "select * from gold.delays order by airline, month"


@dataclass(frozen=True)
class Check:
    """What the demo promises, and what it found."""

    what: str
    expected: int
    found: int

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.expected == self.found


@dataclass
class Story:
    """The demo while it is told."""

    user: User
    watch: Watch
    screen: Screen
    flights: Flights
    checks: list[Check] = field(default_factory=list)
    dead_letters: int = 0
    """Those that were there before."""

    def check(self, what: str, *, expected: int, found: int) -> None:
        """Compare what the platform says with what must be."""
        self.checks.append(Check(what, expected, found))

    async def tell(self) -> None:
        """All acts."""
        await self._prepare()
        await self._land_references()
        await self._land_ten_months()
        await self._land_a_bad_file()
        await self._land_the_corrected_file()
        await self._look_back()

    async def _prepare(self) -> None:
        self.screen.act(
            "1 · Pipelines",
            "Seven queries and their tests, published; triggers say what wakes them.",
        )
        namespace = self.user.namespace
        known = {entry["name"] for entry in (await self.user.get("/namespaces", limit=200))["namespaces"]}
        if namespace in known:
            raise Conflict(f"the platform has a namespace {namespace!r} already; the demo needs one that has none")
        self.dead_letters = await self._dead_letters()
        pushed = await self.user.push(PIPELINES)
        for zone in ZONES:
            await self.user.post("/landing-zones", {"namespace": namespace, "name": zone})
        for zone in ROWS:
            await self.user.trigger(f"bronze.{zone}", "landing_zone_upload", zone_name=zone)
        await self.user.trigger("bronze.flights", "landing_zone_upload", _COOLDOWN_SECONDS, zone_name="flights")
        await self.user.trigger("silver.flights", "pipeline_success", layer="bronze", pipeline="flights")
        await self.user.trigger("gold.delays", "pipeline_success", layer="silver", pipeline="flights")
        for pipeline in pushed:
            self.screen.done(f"{pipeline.pipeline} version {pipeline.version}")

    async def _land_references(self) -> None:
        self.screen.act(
            "2 · Reference data",
            "Airlines, airports, planes and weather are uploaded through HTTP; each file wakes its pipeline.",
        )
        since = len(self.watch.heard)
        await asyncio.gather(*(self.user.upload(file) for file in self.flights.references))
        await self.watch.until_settled(since=since, files=len(ROWS))
        for zone, rows in ROWS.items():
            found = await self.user.number(f"select count(*) from bronze.{zone}")
            self.check(f"rows of {zone} in bronze", expected=rows, found=found)

    async def _land_ten_months(self) -> None:
        months = self.flights.months[:10]
        how = "dropped straight into the bucket" if self.user.reaches_bucket else "uploaded"
        self.screen.act(
            "3 · Ten months of flights",
            f"Ten files are {how} at once. The first wakes bronze.flights; those that come",
            f"while it runs, or within {_COOLDOWN_SECONDS} s, share the next run. Each success wakes the next layer.",
        )
        since = len(self.watch.heard)
        await asyncio.gather(*(self.user.drop(file) for file in months))
        await self.watch.until_settled(since=since, files=len(months))
        self.check(
            "flights in bronze after ten months",
            expected=sum(file.rows for file in months),
            found=await self._bronze_rows(),
        )
        self.screen.console.print()
        self.screen.delays(await self.user.query(_GOLD))

    async def _land_a_bad_file(self) -> None:
        november, december = self.flights.months[10:]
        self.screen.act(
            "4 · A bad file",
            f"December arrives with {SPOILT_ROWS} negative distances. A test of severity error refuses it; November,",
            "which is good, arrives meanwhile and has to wait: both stay new for bronze.flights. Main does not change.",
        )
        before = await self._table()
        since = len(self.watch.heard)
        await self.user.upload(spoilt(december))
        await self.user.drop(november)
        await self.watch.until_settled(since=since, files=2)
        refused = [run for run in self.watch.of(RunFinished, since) if run.error_kind == ErrorKind.QUALITY]
        after = await self._table()
        await self._show_refusal(refused[-1])
        self.check(
            "runs of the bad file that succeeded",
            expected=0,
            found=sum(run.status == RunStatus.SUCCESS for run in self.watch.of(RunFinished, since)),
        )
        self.check("rows of bronze.flights while the bad file is there", expected=before[0], found=after[0])
        self.check(
            "snapshots of bronze.flights made by it",
            expected=0,
            found=len(self.watch.of(TableChanged, since)) + (before[1] != after[1]),
        )
        self.screen.done(f"main is untouched: {number(after[0])} flights, last changed {after[1]}")

    async def _show_refusal(self, refused: RunFinished) -> None:
        run = await self.user.get(f"/runs/{refused.run_id}")
        for test in run["quality"]:
            if test["severity"] == Severity.ERROR and test["status"] != "passed":
                self.screen.console.print()
                self.screen.rows(f"{test['name']} found {test['value']} violations", test["sample_rows"])

    async def _land_the_corrected_file(self) -> None:
        december = self.flights.months[11]
        self.screen.act(
            "5 · The corrected file",
            "December comes again under the same name: the new version takes the place of the bad one. It goes",
            "through, and November, which waited, goes with it.",
        )
        since = len(self.watch.heard)
        await self.user.upload(december)
        await self.watch.until_settled(since=since, files=1)
        read = sum(
            run.files_read
            for run in self.watch.of(RunFinished, since)
            if run.pipeline == f"{self.user.namespace}.bronze.flights" and run.status == RunStatus.SUCCESS
        )
        self.check("files that the next good run read", expected=2, found=read)

    async def _look_back(self) -> None:
        number_of = self.user.number
        self.check("flights in bronze", expected=FLIGHTS, found=await self._bronze_rows())
        self.check("flights in silver", expected=FLIGHTS, found=await number_of("select count(*) from silver.flights"))
        self.check("flights in gold", expected=FLIGHTS, found=await number_of("select sum(flights) from gold.delays"))
        by_file = {
            row["file"]: int(row["flights"])
            for row in await self.user.query("select file, count(*) as flights from bronze.flights group by file")
        }
        self.check(
            "files that were read exactly once",
            expected=len(self.flights.months),
            found=sum(by_file.get(file.name) == file.rows for file in self.flights.months),
        )
        bad = await number_of("select count(*) from bronze.flights where distance <= 0")
        self.check("bad rows on main", expected=0, found=bad)
        self.check("dead letters", expected=self.dead_letters, found=await self._dead_letters())
        runs = await self.user.get("/runs", namespace=self.user.namespace, limit=200)
        heard = {run.run_id for run in self.watch.of(RunFinished)}
        self.check("runs whose end was heard", expected=runs["total"], found=len(heard))

    async def _dead_letters(self) -> int:
        found: int = (await self.user.get("/dead-letters", limit=1))["total"]
        return found

    async def _bronze_rows(self) -> int:
        return await self.user.number("select count(*) from bronze.flights")

    async def _table(self) -> tuple[int, str]:
        """The rows of bronze.flights on main, and when it last changed."""
        table = await self.user.get(f"/tables/{self.user.namespace}/bronze/flights")
        return table["row_count"], table["updated_at"]

    def figures(self) -> dict[str, Any]:
        """What happened, in numbers."""
        runs = self.watch.of(RunFinished)
        good = [run for run in runs if run.status == RunStatus.SUCCESS]
        return {
            "files_landed": len(self.watch.of(FileLanded)),
            "events_heard": len(self.watch.heard),
            "runs": len(runs),
            "runs_succeeded": len(good),
            "runs_refused": len([run for run in runs if run.error_kind == ErrorKind.QUALITY]),
            "rows_written": sum(run.rows_written for run in good),
            "tests_run": sum(run.quality.total for run in runs),
            "median_run_ms": round(median(run.duration_ms or 0 for run in good)) if good else None,
            "median_landed_to_started_ms": self._reaction(),
        }

    def _reaction(self) -> int | None:
        """Milliseconds from a file that landed to the start of the run that it fired at once; the median."""
        landed = {file.event_id: file.occurred_at for file in self.watch.of(FileLanded)}
        started = {run.run_id: run.started_at for run in self.watch.of(RunStarted) if run.attempt == 1}
        waits = [
            started[decision.run_id] - landed[decision.cause_id]
            for decision in self.watch.of(TriggerDecided)
            if decision.decision == Decision.FIRED and decision.cause_id in landed and decision.run_id in started
        ]
        return round(median(wait.total_seconds() for wait in waits) * 1000) if waits else None


@asynccontextmanager
async def story_on(connection: Connection, screen: Screen) -> AsyncIterator[Story]:
    """A story on a platform that was started for it."""
    flights = read_flights()
    async with (
        user_of(connection, NAMESPACE) as user,
        watching(connection, NAMESPACE, _FOLLOWERS, screen.event) as watch,
    ):
        yield Story(user, watch, screen, flights)


@asynccontextmanager
async def story_at(url: str, token: str | None, screen: Screen) -> AsyncIterator[Story]:
    """A story on a platform that others use too: in a namespace of its own, which is removed at the end."""
    flights = read_flights()
    namespace = f"{NAMESPACE}_{secrets.token_hex(3)}"
    async with (
        user_at(url, token, namespace) as user,
        watching_over_http(user.http, namespace, _FOLLOWERS, screen.event) as watch,
        _visiting(user, screen),
    ):
        yield Story(user, watch, screen, flights)


@asynccontextmanager
async def _visiting(user: User, screen: Screen) -> AsyncIterator[None]:
    """A visit whose namespace is removed at its end; where that fails too, what went wrong first is raised."""
    try:
        yield
    except BaseException:
        try:
            await user.leave()
        except RatError as error:
            screen.failed(f"{user.namespace} could not be removed: {error.message}")
        raise
    await user.leave()
