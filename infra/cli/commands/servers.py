"""The servers of the distributed stack on this machine, without the services."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.call import Call, command
from infra.cli.explained import failures_explained
from infra.cli.failure import ExitCode, Failure

if TYPE_CHECKING:
    from infra.alone import RunningServers

app = typer.Typer(
    help="Run PostgreSQL, NATS, MinIO and Nessie on this machine, for services that run apart from them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Stack = Annotated[str, typer.Option("--stack", metavar="STACK", help="Which servers: distributed or embedded.")]


@app.command("up")
@command
def up(
    call: Call,
    stack: Stack = "distributed",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when they are ready, and leave them.")] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="What the gateway will listen on; 0 picks a free one.")
    ] = 8080,
) -> None:
    """Start the servers; Ctrl-C stops them, or `rat servers down`.

    A file `servers.env` in the data directory has the settings for `rat serve`. The first time, MinIO is built and
    Nessie is fetched, which needs Go and Maven and takes some minutes.
    """
    with failures_explained():
        if detach:
            from infra.alone import start_detached

            call.say(f"Starting in {call.data} …")
            _say_ready(call, start_detached(stack, call.data, gateway_port=port))
            return
        _stay(call, stack, port)


def _stay(call: Call, stack: str, port: int) -> None:
    from infra.alone import servers_alone
    from infra.given import warn_of_unknown
    from infra.services import live
    from shared.logs import set_up_logs
    from shared.settings import Settings

    settings = Settings()
    set_up_logs(settings.log_level, "console" if sys.stderr.isatty() else settings.log_format)
    warn_of_unknown()

    async def stay() -> None:
        call.say(f"Starting in {call.data} …")
        async with servers_alone(stack, call.data, gateway_port=port) as running:
            _say_ready(call, running)
            sys.stdout.flush()
            try:
                await asyncio.Event().wait()
            finally:
                call.say("Stopping …")

    live(stay)


@app.command("fetch")
@command
def fetch(call: Call) -> None:
    """Build MinIO and fetch Nessie into the cache, with Go and Maven; `up` does it too, when it has to."""
    with failures_explained():
        from infra.servers.minio import minio_program
        from infra.servers.nessie import nessie_jar

        for program in (minio_program, nessie_jar):
            call.say(f"[green]✓[/] {program()}")


@app.command("down")
@command
def down(call: Call) -> None:
    """Stop the servers, wherever they were started; their data stays."""
    from infra.alone import stop_servers
    from shared.errors import NotFound

    with failures_explained():
        try:
            pid = stop_servers(call.data)
        except NotFound as error:
            # Wanted, and so already.
            call.say(error.message)
            return
    if call.json:
        call.print_json({"stopped": pid})
    call.say(f"[green]✓[/] process {pid} has stopped its servers")


@app.command("status")
@command
def status(call: Call) -> None:
    """Show each server: whether it is ready, its process and its log."""
    from infra.alone import running_servers
    from shared.errors import NotFound, Unavailable

    try:
        running = running_servers(call.data)
    except (NotFound, Unavailable) as error:
        raise Failure(error.message, ExitCode.UNREACHABLE) from error
    if call.json:
        call.print_json(running.model_dump())
    else:
        call.say(f"[bold]{running.stack} stack[/] in {call.data}, run by process {running.pid}\n")
        call.print_table(
            ["server", "state", "process", "log"],
            [(server.name, server.state, server.pid or "", server.log) for server in running.servers],
        )
    if not running.are_ready:
        raise Failure("a server is not ready", ExitCode.UNREACHABLE)


def _say_ready(call: Call, running: "RunningServers") -> None:
    if call.json:
        call.print_json_line(running.model_dump())
        return
    call.say(
        f"[green]✓[/] {len(running.servers)} servers of the {running.stack} stack are ready: "
        f"{', '.join(server.name for server in running.servers)}\n"
        f"  services       set -a; . {running.environment}; set +a; rat serve all\n"
        f"  stop them      rat servers down --data {call.data}"
    )
