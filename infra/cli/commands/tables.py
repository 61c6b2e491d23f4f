"""Tables on main, and SQL over them."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.cli.call import Call, command, usage
from infra.cli.choices import LayerChoice


class Format(StrEnum):
    """How a result is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@command
def tables(
    call: Call,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    layer: Annotated[LayerChoice | None, typer.Option("--layer", help="Only of this layer.")] = None,
) -> None:
    """List the tables on main."""
    from infra.cli.tables import Count, moment, size

    call.print_list(
        "/tables",
        "tables",
        ["table", "rows", "size", "changed"],
        lambda table: (
            f"{table['namespace']}.{table['layer']}.{table['name']}",
            Count(table["row_count"]),
            size(table["size_bytes"]),
            table.get("problem") or moment(table["updated_at"]),
        ),
        empty="There is no table on main.",
        namespace=namespace,
        layer=layer,
    )


@command
def collect(
    call: Call,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace_hours: Annotated[
        float, typer.Option("--grace-hours", min=1, help="Younger files stay; longer than any run takes.")
    ] = 48,
    history_days: Annotated[
        float | None, typer.Option("--history-days", min=1, help="Snapshots that stay readable; all, if not given.")
    ] = None,
) -> None:
    """Remove the files of tables that nothing needs any more."""
    wanted = {"dry_run": dry_run, "grace_hours": grace_hours, "history_days": history_days}
    found = call.api.post_patiently("/collections", wanted)
    if call.json:
        call.print_json(found)
        return
    from infra.cli.tables import Count, size

    call.print_table(
        ["table", "files", "size"],
        [(table["table"], Count(table["files"]), size(table["bytes"])) for table in found["tables"]],
        empty="There is nothing to collect.",
    )
    files = "1 file" if found["files"] == 1 else f"{found['files']} files"
    done = "would be removed" if dry_run else "removed"
    call.say(f"{files}, {size(found['bytes'])}, {done}; {found['young_files']} are younger than {grace_hours:g} h")


@command
def query(
    call: Call,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; - reads it from standard input.")],
    form: Annotated[Format | None, typer.Option("--format", "-f", help="How the rows are written.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where `layer.table` is looked for.")] = "default",
    limit: Annotated[int, typer.Option("--limit", min=0, help="The most rows.")] = 1000,
) -> None:
    """Run SQL over the tables on main."""
    if call.json and form not in (None, Format.JSON):
        raise usage(f"--json and --format {form} cannot both be")
    statement = {"sql": sys.stdin.read() if sql == "-" else sql, "namespace": namespace, "limit": limit}
    if form is Format.CSV:
        _print_csv(call, statement)
        return
    answer = call.api.post("/query", statement)
    if call.json or form is Format.JSON:
        call.print_json(answer)
        return
    columns = [column["name"] for column in answer["columns"]]
    call.print_table(columns, [[_shown(row[column]) for column in columns] for row in answer["rows"]])
    rows = "1 row" if answer["total_rows"] == 1 else f"{answer['total_rows']} rows"
    more = f", more than --limit {limit}" if answer["truncated"] else ""
    call.say(f"[bright_black]{rows}{more} · {answer['duration_ms']:.0f} ms[/]")


def _print_csv(call: Call, statement: dict[str, Any]) -> None:
    with call.api.streamed("/query", statement, accept="text/csv") as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _shown(value: Any) -> Any:
    """A value of a result in a table: nested ones as JSON."""
    if isinstance(value, dict | list):
        import json

        return json.dumps(value, ensure_ascii=False)
    return value
