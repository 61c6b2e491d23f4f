"""The platform itself: started, tried out, looked at."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.call import Call, command, usage
from infra.cli.explained import failures_explained
from infra.cli.failure import ExitCode, Failure

if TYPE_CHECKING:
    from infra.connection import Connection


Stack = Annotated[
    str, typer.Option("--stack", metavar="STACK", help="The servers that it runs on: embedded or distributed.")
]

NoAuth = Annotated[
    bool, typer.Option("--no-auth", help="Let the gateway want no token, also where others can reach it.")
]


@command
def up(
    call: Call,
    stack: Stack = "embedded",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the gateway; 0 takes a free one.")] = 8080,
    no_auth: NoAuth = False,
) -> None:
    """Start the platform on this machine; Ctrl-C stops it."""
    if no_auth:
        _open_the_gateway()
    with failures_explained():
        from infra.given import warn_of_unknown
        from infra.platform import platform
        from infra.services import live
        from shared.logs import set_up_logs
        from shared.settings import Settings

        settings = Settings()
        set_up_logs(settings.log_level, "console" if sys.stderr.isatty() else settings.log_format)
        warn_of_unknown()

        async def stay() -> None:
            import asyncio

            call.say(f"Starting in {call.data} …")
            async with platform(call.data, port=port, stack=stack) as connection:
                _say_ready(call, connection)
                try:
                    await asyncio.Event().wait()
                finally:
                    call.say("Stopping …")

        live(stay)


@command
def serve(
    call: Call,
    services: Annotated[list[str], typer.Argument(metavar="SERVICE...", help="Which; `rat serve all` is all of them.")],
    no_auth: NoAuth = False,
) -> None:
    """Run services, on the servers that RAT_* settings name."""
    if no_auth:
        _open_the_gateway()
    with failures_explained():
        from infra.given import given_settings, warn_of_unknown
        from infra.services import SERVICES, live, run
        from shared.logs import set_up_logs

        names = list(SERVICES) if services == ["all"] else services
        if unknown := [name for name in names if name not in SERVICES]:
            raise Failure(f"no service is called {unknown[0]!r}; there are {', '.join(SERVICES)}", ExitCode.USAGE)
        settings = given_settings()
        set_up_logs(settings.log_level, settings.log_format)
        warn_of_unknown()
        live(lambda: run(names, settings))


@command
def demo(
    call: Call,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the data here, for `rat up --data DIR`.")
    ] = None,
    stack: Stack = "embedded",
) -> None:
    """Watch real files become tested tables; it ends by itself.

    The flights of 2013 land month by month, and a file that breaks a test is refused. Without --url it starts a
    platform of its own.
    """
    with failures_explained():
        from infra.demo.play import play, play_at

        if call.url is None:
            is_good = play(call.console, as_json=call.json, keep=keep, stack=stack)
        elif keep is None:
            is_good = play_at(call.console, call.url, call.token, as_json=call.json)
        else:
            raise usage("--keep is for a platform of the demo's own: with --url there is no data directory to keep")
        if not is_good:
            raise Failure("the demo did not find what it expected; see above")


@command
def status(call: Call) -> None:
    """Show the services, their lag, and the dead letters."""
    health = call.api.health()
    is_ready = health["status"] == "ready"
    consumers = call.api.get("/consumers")["consumers"] if is_ready else []
    dead = call.api.get("/dead-letters", limit=1)["total"] if is_ready else None
    if call.json:
        call.print_json({"url": call.api.url, "health": health, "consumers": consumers, "dead_letters": dead})
    else:
        _show_status(call, health, consumers, dead)
    if not is_ready:
        raise Failure("a part of the platform is down", ExitCode.UNREACHABLE)


def _open_the_gateway() -> None:
    # Whichever settings of this process are read, and by whom.
    os.environ["RAT_GATEWAY_OPEN"] = "true"


def _show_status(call: Call, health: dict[str, Any], consumers: list[dict[str, Any]], dead: int | None) -> None:
    call.say(f"[bold]RAT {health.get('version', '')}[/] at {call.api.url}\n")
    call.print_table(
        ["part", "state", "latency", ""],
        [
            (name, part["state"], f"{part['latency_ms']:.1f} ms", part.get("message") or "")
            for name, part in health["dependencies"].items()
        ],
    )
    if consumers:
        from infra.cli.tables import Count

        call.say("")
        call.print_table(
            ["hears", "consumer", "waiting", "working", "again"],
            [
                (
                    lag["subject"],
                    lag["consumer"],
                    *(Count(lag[name]) for name in ("pending", "ack_pending", "redelivered")),
                )
                for lag in consumers
            ],
        )
    if dead is not None:
        colour = "red" if dead else "green"
        call.say(f"\n[{colour}]{dead} dead letters[/]" + (", see `rat dead list`" if dead else ""))


def _say_ready(call: Call, connection: "Connection") -> None:
    if call.json:
        facts = {"url": connection.url, "data": str(call.data), "pid": connection.pid, "version": connection.version}
        call.print_json_line(facts)
        return
    call.say(
        f"[green]✓[/] RAT {connection.version} is ready at [bold]{connection.url}[/]\n"
        f"  API documents  {connection.url}/schema\n"
        f"  S3             {connection.s3.endpoint}, bucket {connection.s3.bucket}\n"
        f"  NATS           {connection.nats.url}\n"
        f"  keys and data  {call.data}\n"
        "  Ctrl-C stops it."
    )
    sys.stdout.flush()
