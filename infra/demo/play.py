"""`rat demo`: tells the story on a platform of its own or on one that runs, shows what was checked, and ends."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from contracts.messages import utc_now
from infra.cli.tables import Count, table
from infra.demo.screen import Screen, number
from infra.demo.story import Story, story_at, story_on
from infra.platform import platform
from infra.services import live
from shared.logs import set_up_logs
from shared.settings import Settings


@dataclass(frozen=True)
class Performance:
    """How the demo went."""

    story: Story
    start_seconds: float
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether all is as it must be."""
        return all(check.holds for check in self.story.checks)

    def summary(self) -> dict[str, Any]:
        """The outcome as JSON."""
        return {
            "ok": self.is_good,
            "checks": [vars(check) | {"holds": check.holds} for check in self.story.checks],
            **self.story.figures(),
            "seconds_to_start": round(self.start_seconds, 1),
            "seconds": round(self.seconds, 1),
        }


def play(console: Console, *, as_json: bool, keep: Path | None, stack: str) -> bool:
    """Play the demo in a data directory of its own; whether all was found as it must be.

    The directory is removed at the end, but for `keep`, or when something went wrong.
    """
    data = keep or Path(tempfile.mkdtemp(prefix="rat-demo-"))
    data.mkdir(parents=True, exist_ok=True)
    logs = data / "rat.log"
    performances: list[Performance] = []

    async def perform() -> None:
        performances.append(await _perform(data, Console(file=sys.stdout, quiet=True) if as_json else console, stack))

    try:
        with _errors_go_to(logs):
            live(perform)
    except Exception:
        console.print(f"The log of the platform is {logs}", style="bright_black", soft_wrap=True)
        raise
    if not performances:
        if keep is None:
            shutil.rmtree(data, ignore_errors=True)
        raise KeyboardInterrupt
    [performance] = performances
    _report(console, performance, as_json=as_json)
    if keep is None and performance.is_good:
        shutil.rmtree(data, ignore_errors=True)
    else:
        console.print(f"Data and logs are in {data}", style="bright_black", soft_wrap=True)
    return performance.is_good


def play_at(console: Console, url: str, token: str | None, *, as_json: bool) -> bool:
    """Play the demo on a platform that runs, in a namespace of its own; whether all was found as it must be."""
    performances: list[Performance] = []

    async def perform() -> None:
        shown = Console(file=sys.stdout, quiet=True) if as_json else console
        shown.print(
            f"On {url}, in a namespace of its own. Only the gateway's address is known: all files go through HTTP, "
            "none straight into the bucket, and events are heard over HTTP.",
            style="italic",
        )
        began = time.monotonic()
        async with story_at(url, token, Screen(shown, utc_now())) as story:
            await _tell(story)
        shown.print()
        story.screen.done(f"{story.user.namespace} is removed, with its pipelines and files; its tables stay on main")
        performances.append(Performance(story, 0, time.monotonic() - began))

    live(perform)
    if not performances:
        raise KeyboardInterrupt
    [performance] = performances
    _report(console, performance, as_json=as_json)
    return performance.is_good


async def _perform(data: Path, console: Console, stack: str) -> Performance:
    began = time.monotonic()
    console.print(f"Starting the servers of the {stack} stack and seven services …", style="italic")
    async with platform(data, port=0, stack=stack) as connection:
        started = time.monotonic()
        screen = Screen(console, utc_now())
        screen.done(f"RAT {connection.version} is ready at {connection.url} after {started - began:.1f} s")
        async with story_on(connection, screen) as story:
            await _tell(story)
    return Performance(story, started - began, time.monotonic() - began)


async def _tell(story: Story) -> None:
    """Tell it, on a terminal with a line that says what goes on."""
    if not story.screen.console.is_terminal:
        await story.tell()
        return
    with story.screen.console.status("") as status:
        story.screen.status = status
        await story.tell()


def _report(console: Console, performance: Performance, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(performance.summary(), indent=2) + "\n")
    else:
        _show(console, performance)


def _show(console: Console, performance: Performance) -> None:
    figures = performance.story.figures()
    console.print()
    performance.story.screen.title("Checked")
    rows = [
        (check.what, Count(check.found), "✓" if check.holds else f"✗ expected {number(check.expected)}")
        for check in performance.story.checks
    ]
    console.print(table(["", "", ""], rows))
    console.print()
    console.print(
        f"[bold]{figures['files_landed']} files, {figures['runs']} runs "
        f"({figures['runs_refused']} refused by a test), {number(figures['rows_written'])} rows written, "
        f"{figures['tests_run']} tests[/]",
        soft_wrap=True,
    )
    console.print(
        f"A file that lands starts its run after {figures['median_landed_to_started_ms']} ms, a run takes "
        f"{figures['median_run_ms']} ms (medians). The demo took {performance.seconds:.1f} s"
        + (f", {performance.start_seconds:.1f} s of them to start." if performance.start_seconds else "."),
        soft_wrap=True,
    )
    if performance.is_good:
        console.print("[green]All is as it must be.[/] `rat up` starts a platform and leaves it running.")
    else:
        console.print("[red]Something is not as it must be.[/]")


@contextmanager
def _errors_go_to(file: Path) -> Iterator[None]:
    """Let what this process and its children write to standard error go to a file: the terminal is for the story."""
    sys.stderr.flush()
    kept = os.dup(2)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    settings = Settings()
    set_up_logs(settings.log_level, "json")
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
