"""Runs: asked for, listed, followed."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from infra.cli.call import Call, command, usage
from infra.cli.choices import LayerChoice, StatusChoice
from infra.cli.colours import COLOURS
from infra.cli.failure import Failure
from infra.cli.names import PIPELINE, split

if TYPE_CHECKING:
    from infra.cli.api import Sent

_RUN = typer.Argument(metavar="RUN", help="The id of a run.")
_TERMINAL: Final = ("success", "failed", "cancelled")
_LEVELS: Final = {"warning": "yellow", "error": "red", "debug": "bright_black"}


@command
def run(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")] = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="What `var('KEY')` reads: JSON, or else text."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Merge nothing: follow it, and show what would change.")
    ] = False,
) -> None:
    """Run a pipeline. With --follow and --dry-run, the exit code says how it ended."""
    namespace, layer, name = split(pipeline)
    wanted = {
        "namespace": namespace,
        "layer": layer,
        "pipeline": name,
        "parameters": _parameters(param or []),
        "dry_run": dry_run,
    }
    accepted = call.api.post("/runs", wanted)
    if follow or dry_run:
        call.say(f"[bold]{namespace}.{layer}.{name}[/] run {accepted['run_id']}")
    _accepted(call, accepted, follow=follow or dry_run)


@command
def runs(
    call: Call,
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Show this run.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    layer: Annotated[LayerChoice | None, typer.Option("--layer", help="Only of this layer.")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only of pipelines of this name.")] = None,
    status: Annotated[StatusChoice | None, typer.Option("--status", help="Only those that are so.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="The most runs.")] = 20,
) -> None:
    """List runs, the newest first, or show one."""
    if run_id is not None:
        show_run(call, call.api.get(f"/runs/{_id(run_id)}"))
        return
    filters = {"namespace": namespace, "layer": layer, "pipeline": pipeline, "status": status}
    page = call.api.get("/runs", limit=limit, **filters)
    if call.json:
        call.print_json(page)
        return
    from infra.cli.tables import Count, duration, moment

    call.print_table(
        ["run", "pipeline", "status", "trigger", "created", "took", "rows"],
        [
            (
                found["id"],
                f"{found['namespace']}.{found['layer']}.{found['pipeline']}",
                found["status"],
                found["trigger"],
                moment(found["created_at"]),
                duration(found["duration_ms"]),
                Count(found["rows_written"]),
            )
            for found in page["runs"]
        ],
        empty="There is no such run.",
    )
    if page["total"] > len(page["runs"]):
        call.say(f"[bright_black]{len(page['runs'])} of {page['total']}[/]")


@command
def cancel(call: Call, run_id: Annotated[str, _RUN]) -> None:
    """Cancel a run; one that has merged by then is a success."""
    accepted = call.api.post(f"/runs/{_id(run_id)}/cancel")
    if call.json:
        call.print_json(accepted)
    else:
        call.say(f"[green]✓[/] run {accepted['run_id']} is to be cancelled; it is {accepted['status']}")


@command
def retry(
    call: Call,
    run_id: Annotated[str, _RUN],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")] = False,
) -> None:
    """Run a run that has ended once more: a new run, of the same version and parameters."""
    _accepted(call, call.api.post(f"/runs/{_id(run_id)}/retry"), follow=follow)


@command
def logs(
    call: Call,
    run_id: Annotated[str, _RUN],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """Show the log of a run. With --follow, the exit code says how it ended."""
    if follow:
        follow_run(call, _id(run_id))
        return
    answer = call.api.get(f"/runs/{_id(run_id)}/logs")
    if call.json:
        call.print_json(answer)
        return
    for line in answer["logs"]:
        _print_line(call, line)


def _accepted(call: Call, accepted: dict[str, Any], *, follow: bool) -> None:
    """Follow a run that was accepted, or say its id, which scripts read."""
    if follow:
        follow_run(call, accepted["run_id"])
    elif call.json:
        call.print_json(accepted)
    else:
        call.console.print(accepted["run_id"])


def follow_run(call: Call, run_id: str) -> None:
    """Show what a run does until it ends, and how it ended; `Failure` unless it is a success."""
    for event in call.api.events(f"/runs/{run_id}/logs", is_last=_is_end):
        if call.json:
            call.print_json_line({"event": event.name, **event.data})
            continue
        match event.name:
            case "log":
                _print_line(call, event.data)
            case "phase":
                _print_phase(call, event.data)
            case _:
                pass
    ended = call.api.get(f"/runs/{run_id}")
    if call.json:
        call.print_json_line({"event": "run", **ended})
    else:
        _print_end(call, ended)
    if ended["status"] != "success":
        raise Failure(
            f"run {run_id} {ended['status']}: {ended['error'] or 'no reason was given'}",
            details={"run_id": run_id, "kind": ended["error_kind"]},
        )


def show_run(call: Call, found: dict[str, Any]) -> None:
    """Show one run with its phases and tests."""
    if call.json:
        call.print_json(found)
        return
    from infra.cli.tables import duration

    facts = {
        "pipeline": f"{found['namespace']}.{found['layer']}.{found['pipeline']}",
        "version": str(found["version"]) if found["version"] else "draft",
        "status": found["status"],
        "trigger": found["trigger"],
        "attempt": str(found["attempt"]),
        "rows written": str(found["rows_written"]),
        "took": duration(found["duration_ms"]),
        "error": found["error"],
    }
    call.print_table(["run", found["id"]], [(name, value) for name, value in facts.items() if value is not None])
    for phase in found["phase_profiles"]:
        _print_phase(call, phase)
    _print_changes(call, found)
    print_quality(call, found["quality"])


def _is_end(event: "Sent") -> bool:
    return event.name == "status" and event.data["status"] in _TERMINAL


def _id(run_id: str) -> str:
    try:
        return str(UUID(run_id))
    except ValueError:
        raise usage(f"{run_id!r} is not the id of a run, as `rat runs` shows them") from None


def _parameters(pairs: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise usage(f"--param {pair!r} is not KEY=VALUE")
        try:
            parameters[key] = json.loads(text)
        except ValueError:
            parameters[key] = text
    return parameters


def _print_line(call: Call, line: dict[str, Any]) -> None:
    from rich.text import Text

    at = datetime.fromisoformat(line["timestamp"]).astimezone()
    text = Text(f"{at:%H:%M:%S.%f}"[:-3], style="bright_black")
    text.append(f" {line['message']}", style=_LEVELS.get(line["level"], "default"))
    call.console.print(text, soft_wrap=True)


def _print_phase(call: Call, phase: dict[str, Any]) -> None:
    from infra.cli.tables import duration

    call.say(f"  [cyan]{phase['name']:<8}[/] [bright_black]{duration(phase['duration_ms'])}[/]")


def print_quality(call: Call, results: list[dict[str, Any]]) -> None:
    """Show how tests judged."""
    if not results:
        return
    from infra.cli.tables import Count

    call.print_table(
        ["test", "severity", "status", "violations"],
        [
            (
                result["name"],
                result["severity"],
                result["status"],
                None if result["value"] is None else Count(result["value"]),
            )
            for result in results
        ],
    )


def _print_changes(call: Call, found: dict[str, Any]) -> None:
    """Show what a dry run would have changed on main."""
    from infra.cli.tables import Count

    for table in found["changes"]:
        call.print_table(
            ["would change", "rows added", "removed", "changed", ""],
            [
                (
                    table["table"],
                    Count(table["rows_added"]),
                    Count(table["rows_removed"]),
                    Count(table["rows_changed"]),
                    "new table" if table["is_new"] else "",
                )
            ],
        )
        if table["schema_changes"] and not table["is_new"]:
            call.print_table(
                ["column", "", "before", "after"],
                [
                    (one["column"], one["change"].replace("_", " "), one["before"], one["after"])
                    for one in table["schema_changes"]
                ],
            )


def _print_end(call: Call, ended: dict[str, Any]) -> None:
    from infra.cli.tables import duration

    _print_changes(call, ended)
    print_quality(call, ended["quality"])
    colour = COLOURS[ended["status"]]
    rows = f"{ended['rows_written']:,} rows".replace(",", " ")
    note = " · dry run, main is as it was" if ended["dry_run"] else ""
    call.say(f"[{colour}]{ended['status']}[/] · {rows} · {duration(ended['duration_ms'])}{note}")
