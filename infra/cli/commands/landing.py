"""Landing zones, and the files that are put there."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.call import Call, command
from infra.cli.failure import ExitCode, Failure
from infra.cli.names import split_zone


@command
def zones(
    call: Call,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
) -> None:
    """List the landing zones."""
    from infra.cli.tables import Count, size

    call.print_list(
        "/landing-zones",
        "zones",
        ["zone", "files", "size", "description"],
        lambda zone: (
            f"{zone['namespace']}/{zone['name']}",
            Count(zone["file_count"]),
            size(zone["total_bytes"]),
            zone["description"],
        ),
        empty="There is no landing zone.",
        namespace=namespace,
    )


@command
def upload(
    call: Call,
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="`namespace/zone`, or a zone of `default`.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Put there by its own name.", exists=True, dir_okay=False)
    ],
    create: Annotated[
        bool, typer.Option("--create", help="Make the zone, and its namespace, if there is none.")
    ] = False,
) -> None:
    """Put files into a landing zone.

    The same name again is a new version of the file.
    """
    namespace, name = split_zone(zone)
    _ensure_zone(call, namespace, name, create=create)
    landed = []
    for file in files:
        landed.append(_upload(call, f"/landing-zones/{namespace}/{name}/files", file))
        call.say(f"[green]✓[/] {file.name} landed in {namespace}/{name}")
    if call.json:
        call.print_json({"files": landed, "total": len(landed)})


def _ensure_zone(call: Call, namespace: str, name: str, *, create: bool) -> None:
    try:
        call.api.get(f"/landing-zones/{namespace}/{name}")
    except Failure as failure:
        if failure.exit_code != ExitCode.NOT_FOUND:
            raise
        if not create:
            raise Failure(
                f"there is no landing zone {namespace}/{name}; --create makes it", ExitCode.NOT_FOUND
            ) from None
        namespaces = {known["name"] for known in call.api.entries("/namespaces", "namespaces")}
        if namespace not in namespaces:
            call.api.post("/namespaces", {"name": namespace})
        call.api.post("/landing-zones", {"namespace": namespace, "name": name})
        call.say(f"[green]✓[/] landing zone {namespace}/{name} made")


def _upload(call: Call, path: str, file: Path) -> Any:
    if call.json or not call.console.is_terminal:
        with file.open("rb") as content:
            return call.api.upload(path, file.name, content)
    from rich.progress import wrap_file

    with (
        file.open("rb") as content,
        wrap_file(content, os.stat(file).st_size, description=file.name, console=call.console, transient=True) as read,
    ):
        return call.api.upload(path, file.name, read)
