"""Looks at a pipeline's code without a run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.call import Call, command
from infra.cli.commands.runs import print_quality
from infra.cli.failure import Failure
from infra.cli.names import PIPELINE, path_of, split


@command
def preview(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Run this code, not the draft's; `-` reads it.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="The most rows.")] = 20,
    sample: Annotated[
        list[str] | None, typer.Option("--sample", metavar="NAME", help="Read only this sample; may be repeated.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show DuckDB's plan, too.")] = False,
) -> None:
    """Show what a draft, or code of a file, gives over samples where there are any; nothing is written."""
    body: dict[str, Any] = {"limit": limit, "sample_files": sample or None}
    if file is not None:
        body["code"] = sys.stdin.read() if file == "-" else _text(Path(file))
    seen = call.api.post_patiently(f"{path_of(pipeline)}/preview", body)
    if call.json:
        call.print_json(seen)
    else:
        _show(call, seen, with_plan=plan)
    if seen["error"] is not None:
        raise Failure(seen["error"], details={"kind": seen["error_kind"]})


@command
def test(call: Call, pipeline: Annotated[str, PIPELINE]) -> None:
    """Run the tests of a pipeline's draft on what main holds. The exit code says whether all passed."""
    judged = call.api.post_patiently(f"{path_of(pipeline)}/tests/run", {})
    if call.json:
        call.print_json(judged)
    else:
        print_quality(call, judged["results"])
        for result in judged["results"]:
            if result["message"]:
                call.say(f"[red]{result['name']}[/] {result['message']}")
        if not judged["total"] and judged["error"] is None:
            call.say("[bright_black]There is no test.[/]")
    if judged["error"] is not None:
        raise Failure(judged["error"], details={"kind": judged["error_kind"]})
    if bad := judged["failed"] + judged["errored"]:
        raise Failure(f"{bad} of {judged['total']} tests did not pass")


@command
def lineage(call: Call, table: Annotated[str, PIPELINE]) -> None:
    """Show which columns of tables and landing zones the columns of a pipeline's table come from, one step back."""
    found = call.api.get("/lineage/columns", table=".".join(split(table)))
    if call.json:
        call.print_json(found)
        return
    unknown = found["unknown"]
    rows = [
        (
            line["name"],
            "\n".join(f"{source['name']}.{source['column']}" for source in line["sources"])
            or ("?" if unknown else "-"),
        )
        for line in found["columns"]
    ]
    call.print_table(["column", "comes from"], rows)
    if unknown:
        call.console.print(unknown, style="yellow", markup=False)


def _show(call: Call, seen: dict[str, Any], *, with_plan: bool) -> None:
    from infra.cli.tables import duration, size

    for line in seen["logs"]:
        call.say(f"[bright_black]{line['message']}[/]")
    if seen["columns"]:
        names = [column["name"] for column in seen["columns"]]
        titles = [f"{column['name']}\n{column['type'].lower()}" for column in seen["columns"]]
        rows = [tuple(row[name] for name in names) for row in seen["rows"]]
        call.print_table(titles, rows)
        total = "more than these" if seen["total_row_count"] is None else seen["total_row_count"]
        phases = ", ".join(f"{phase['name']} {duration(phase['duration_ms'])}" for phase in seen["phases"])
        call.say(f"[bright_black]{len(rows)} of {total} rows · {phases} · at most {size(seen['memory_peak_bytes'])}[/]")
    if with_plan:
        call.console.print(seen["explain_output"], markup=False)
    for warning in seen["warnings"]:
        call.say(f"[yellow]{warning}[/]")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read as text: {error}") from error
