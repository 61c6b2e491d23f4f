"""What the demo shows: what is being done, each event as it happens, tables, and what was checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from rich.console import Console
from rich.rule import Rule
from rich.status import Status
from rich.table import Table
from rich.text import Text

from contracts.landing import FileLanded
from contracts.messages import Event
from contracts.runs import Phase, RunFinished, RunProgressed, RunRejected, RunStarted, RunStatus
from contracts.tables import TableChanged
from contracts.triggers import Decision, TriggerDecided

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WIDTH: Final = 100
_DECISIONS: Final = {
    Decision.FIRED: "asks for a run",
    Decision.DEFERRED: "will ask for a run when its cooldown is over",
    Decision.COALESCED: "joins the run that waits",
    Decision.SKIPPED: "does nothing",
}


@dataclass
class Screen:
    """Where the demo is watched."""

    console: Console
    began_at: datetime
    status: Status | None = None
    """A line at the bottom that says which runs go on; on a terminal only."""
    going: dict[UUID, str] = field(default_factory=dict)

    def act(self, title: str, *lines: str) -> None:
        """Begin the next part."""
        self.console.print()
        self.title(title)
        for line in lines:
            self.console.print(Text(line, style="italic"), soft_wrap=True)

    def title(self, text: str) -> None:
        """A line that is easily found."""
        self.console.print(Rule(Text(text, style="bold"), align="left", style="bright_black"), width=_WIDTH)

    def done(self, text: str) -> None:
        """Say that something was done."""
        self.console.print(Text.assemble(("✓ ", "green"), text), soft_wrap=True)

    def failed(self, text: str) -> None:
        """Say that something could not be done."""
        self.console.print(Text.assemble(("✗ ", "red"), text), soft_wrap=True)

    def event(self, event: Event) -> None:
        """Show an event of the platform."""
        self._follow(event)
        line = _line(event)
        if line is None:
            return
        seconds = (event.occurred_at - self.began_at).total_seconds()
        self.console.print(Text.assemble((f"{seconds:7.3f} s  ", "bright_black"), line), soft_wrap=True)

    def _follow(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.going[event.run_id] = _short(event.pipeline)
            case RunProgressed() if event.phase is not None and event.run_id in self.going:
                self.going[event.run_id] = f"{self.going[event.run_id].partition(' ')[0]} {event.phase.name} ✓"
            case RunFinished():
                self.going.pop(event.run_id, None)
            case _:
                return
        if self.status is not None:
            self.status.update(Text(" · ".join(self.going.values()) or "waiting for events", style="cyan"))

    def delays(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show how late the airlines were in each month: the mean delay at arrival, in minutes."""
        months = sorted({int(row["month"]) for row in rows})
        table = Table(
            box=None, pad_edge=False, header_style="bold", title="minutes late at arrival", title_justify="left"
        )
        table.add_column("airline", no_wrap=True)
        for month in months:
            table.add_column(_MONTHS[month - 1], justify="right")
        table.add_column("flights", justify="right")
        airlines = {row["airline"]: row["carrier"] for row in rows}
        for airline in airlines:
            late = {int(row["month"]): row for row in rows if row["airline"] == airline}
            cells = [_delay(late[month]["mean_arrival_delay"] if month in late else None) for month in months]
            table.add_row(airline, *cells, number(sum(int(row["flights"]) for row in late.values())))
        self.console.print(table)

    def rows(self, title: str, rows: Sequence[dict[str, Any]]) -> None:
        """Show rows as they are."""
        if not rows:
            return
        table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        self.console.print(table)


def number(count: int) -> str:
    """A number as people read it."""
    return f"{count:,}".replace(",", " ")


def _line(event: Event) -> Text | None:
    match event:
        case FileLanded():
            where = f"{event.namespace}/{event.zone}"
            return Text.assemble(("⬇ ", "blue"), (event.filename, "bold"), f" landed in {where}")
        case TriggerDecided():
            return Text.assemble(
                ("⚡ ", "yellow"), f"the trigger of {_short(event.pipeline)} {_DECISIONS[event.decision]}"
            )
        case RunStarted():
            return Text.assemble(
                ("▶ ", "cyan"), (_short(event.pipeline), "bold"), " starts ", (f"({event.trigger})", "bright_black")
            )
        case RunFinished():
            return _end(event)
        case RunRejected():
            return Text.assemble(("✗ ", "red"), f"{_short(event.pipeline)} does not run: {event.message}")
        case TableChanged():
            table = f"{event.layer}.{event.name}"
            return Text.assemble(("◆ ", "magenta"), f"main has a new snapshot of {table}: ", (event.snapshot, "bold"))
        case _:
            return None


def _end(run: RunFinished) -> Text:
    if run.status != RunStatus.SUCCESS:
        reason = (run.error or "").partition("\n")[0]
        return Text.assemble(("✗ ", "red"), (_short(run.pipeline), "bold red"), f" {run.status}: {reason}")
    if not run.tables:
        return Text.assemble(("✓ ", "green"), (_short(run.pipeline), "bold green"), " had nothing new to read")
    tests = f"{run.quality.passed} of {run.quality.total} tests passed" if run.quality.total else "no tests"
    warned = f", {run.quality.warned} warned" if run.quality.warned else ""
    files = f" from {run.files_read} files" if run.files_read else ""
    return Text.assemble(
        ("✓ ", "green"),
        (_short(run.pipeline), "bold green"),
        f" {number(run.rows_written)} rows{files} in {number(run.duration_ms or 0)} ms, {tests}{warned} ",
        (f"({_phases(run.phases)})", "bright_black"),
    )


def _phases(phases: Sequence[Phase]) -> str:
    return " · ".join(f"{phase.name} {phase.duration_ms:.0f}" for phase in phases)


def _short(pipeline: str) -> str:
    """The name without its namespace."""
    return pipeline.partition(".")[2]


def _delay(minutes: float | None) -> Text:
    if minutes is None:
        return Text("–", style="bright_black")
    colour = "green" if minutes <= 0 else "default" if minutes < 15 else "yellow" if minutes < 30 else "red"
    return Text(str(round(minutes)), style=colour)
