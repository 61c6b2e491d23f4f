"""The code of pipelines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.call import Call, command
from infra.cli.choices import LayerChoice
from infra.cli.failure import Failure
from infra.cli.names import PIPELINE, path_of

if TYPE_CHECKING:
    from infra.cli.push import Pushed


@command
def push(
    call: Call,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Holds [NAMESPACE/]pipelines/LAYER/NAME/…"),
    ],
    publish: Annotated[bool, typer.Option("--publish", help="Publish what differs from what is published.")] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace, where the folder does not say it.")
    ] = "default",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files of these pipelines that the folder does not have.")
    ] = False,
) -> None:
    """Bring a folder of pipelines to the platform.

    What is missing is made, and what has changed is written.
    """
    from infra.cli.folder import read_folder
    from infra.cli.push import ensure_namespaces, push_draft
    from infra.cli.push import publish as publish_pipeline

    pipelines = read_folder(directory, namespace)
    ensure_namespaces(call.api, pipelines)
    done = []
    failures: list[Failure] = []
    for pipeline in pipelines:
        pushed = push_draft(call.api, pipeline, prune=prune)
        try:
            if publish:
                pushed = publish_pipeline(call.api, pipeline, pushed)
        except Failure as failure:
            failures.append(failure)
        else:
            _say(call, pushed)
        done.append(pushed)
    if call.json:
        call.print_json({"pipelines": [vars(pushed) for pushed in done], "total": len(done)})
    if failures:
        # The drafts are there, and what is in order was published.
        details = failures[0].details if len(failures) == 1 else {}
        raise Failure("\n".join(str(failure) for failure in failures), details=details)


@command
def pipelines(
    call: Call,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    layer: Annotated[LayerChoice | None, typer.Option("--layer", help="Only of this layer.")] = None,
) -> None:
    """List the pipelines."""
    call.print_list(
        "/pipelines",
        "pipelines",
        ["pipeline", "type", "version", "draft", "description"],
        lambda pipeline: (
            f"{pipeline['namespace']}.{pipeline['layer']}.{pipeline['name']}",
            pipeline["type"],
            pipeline["version"],
            "differs" if pipeline["draft_dirty"] else "",
            pipeline["description"],
        ),
        empty="There is no pipeline.",
        namespace=namespace,
        layer=layer,
    )


@command
def versions(call: Call, pipeline: Annotated[str, PIPELINE]) -> None:
    """List the versions of a pipeline that are kept, the newest first."""
    from infra.cli.tables import moment

    call.print_list(
        f"{path_of(pipeline)}/versions",
        "versions",
        ["version", "published", "message"],
        lambda one: (one["version_number"], moment(one["created_at"]), one["message"] or ""),
        empty="It was never published.",
    )


@command
def diff(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="From this version.")],
    against: Annotated[str, typer.Argument(metavar="AGAINST", help="To this version, or to `draft`.")] = "draft",
) -> None:
    """Show what differs from a version to the draft, or to another version."""
    path = f"{path_of(pipeline)}/versions/{version}/diff"
    found = list(call.api.entries(path, "files", against=against))
    if call.json:
        call.print_json({"files": found, "total": len(found)})
        return
    for file in found:
        call.console.print(file["diff"], markup=False, soft_wrap=True, end="")


@command
def rollback(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version whose files are published again.")],
    message: Annotated[str | None, typer.Option("--message", "-m", help="Why.")] = None,
) -> None:
    """Publish the files of an older version again, as a new version; the draft stays as it is."""
    done = call.api.post(f"{path_of(pipeline)}/rollback", {"version": version, "message": message})
    if call.json:
        call.print_json(done)
    else:
        call.say(f"[green]✓[/] version {done['new_version']} has the files of version {done['from_version']}")


def _say(call: Call, pushed: "Pushed") -> None:
    changes = [
        "made" if pushed.created else "",
        f"{len(pushed.written)} files written"
        if len(pushed.written) > 1
        else "".join(pushed.written) and "1 file written",
        f"{', '.join(pushed.removed)} removed" if pushed.removed else "",
        f"version {pushed.version} published" if pushed.published else "",
    ]
    said = ", ".join(change for change in changes if change) or "unchanged"
    call.say(f"[green]✓[/] {pushed.pipeline} [bright_black]{said}[/]")
    for warning in pushed.warnings:
        call.say(f"  [yellow]{warning}[/]")
