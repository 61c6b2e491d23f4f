"""The command's own options, and the table of commands."""

from typing import Annotated

import typer

from infra.cli.call import Call, Data, Json, Url
from infra.cli.commands import code, dead, hosting, landing, looks, platform, runs, servers, tables, waking

_EXIT_CODES = (
    """Exit codes: 0 done · 1 refused, or the run failed · 2 wrong usage · 3 no platform answers · 4 no such thing"""
)

app = typer.Typer(
    name="rat",
    help="Files land, pipelines run, tests judge, and only good data reaches main.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rat {version('rat-platform')}")
        raise typer.Exit


@app.callback()
def rat(
    context: typer.Context,
    url: Url = None,
    data: Data = None,
    json: Json = False,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Keep the options that all commands share."""
    context.obj = Call(url=url, data=data, json=json)


for name, function in {
    "up": platform.up,
    "serve": platform.serve,
    "secrets": hosting.secrets,
    "setup": hosting.setup,
    "demo": platform.demo,
    "status": platform.status,
    "push": code.push,
    "pipelines": code.pipelines,
    "versions": code.versions,
    "diff": code.diff,
    "rollback": code.rollback,
    "preview": looks.preview,
    "test": looks.test,
    "lineage": looks.lineage,
    "zones": landing.zones,
    "upload": landing.upload,
    "run": runs.run,
    "runs": runs.runs,
    "logs": runs.logs,
    "cancel": runs.cancel,
    "retry": runs.retry,
    "tables": tables.tables,
    "query": tables.query,
    "collect": tables.collect,
}.items():
    app.command(name)(function)
app.add_typer(waking.trigger, name="trigger")
app.add_typer(waking.schedule, name="schedule")
app.add_typer(servers.app, name="servers")
app.add_typer(hosting.token, name="token")
app.add_typer(dead.app, name="dead")
