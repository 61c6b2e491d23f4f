"""For platforms whose servers and services are processes of their own: secrets, preparation, tokens."""

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.call import Call, command, usage
from infra.cli.explained import failures_explained

token = typer.Typer(
    help="Make and revoke API tokens, beside a gateway that others can reach.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; it is shown in the audit.")]


@command
def secrets(
    call: Call,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Gets a folder for each service and each server.")],
) -> None:
    """Generate passwords and keys, and hand out to each service and server its own.

    RAT_* settings say where the servers are. What was generated before stays.
    """
    with failures_explained():
        from infra.given import given_settings
        from infra.secrets import hand_out

        hand_out(folder, given_settings())
    call.say(f"[green]✓[/] secrets are in {folder}")


@command
def setup(
    call: Call,
    parts: Annotated[list[str], typer.Argument(metavar="PART...", help="Of postgres, nats, minio, s3 and nessie.")],
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long for each server.")] = 60,
    keep: Annotated[bool, typer.Option("--keep", help="Go on, and make again what somebody removes.")] = False,
) -> None:
    """Prepare servers for the services: roles, schemas, streams, the bucket. It can be run again at any time.

    RAT_* settings say where the servers are, and how `infra` logs in to them.
    """
    with failures_explained():
        from infra.given import given_settings, warn_of_unknown
        from infra.preparing import keep_prepared, prepare
        from infra.services import live
        from shared.logs import set_up_logs

        settings = given_settings()
        set_up_logs(settings.log_level, settings.log_format)
        warn_of_unknown()

        async def set_up() -> None:
            await prepare(parts, settings, wait_seconds=wait)
            call.say(f"[green]✓[/] {', '.join(parts)}")
            if keep:
                await keep_prepared(parts, settings)

        live(set_up)


@token.command("create")
@command
def create_token(
    call: Call,
    name: Name,
    scope: Annotated[str, typer.Option("--scope", help="What it may do: read, write or admin.")],
    unless_any: Annotated[bool, typer.Option("--unless-any", help="Make none if there is one, of any name.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Write it here, for its owner only, and show it not.")
    ] = None,
) -> None:
    """Make a token and show it, for the only time: the platform keeps a hash of it.

    RAT_* settings say how the gateway logs in to PostgreSQL.
    """
    with failures_explained():
        from infra.given import given_settings
        from infra.tokens import make_token
        from services.gateway.tokens import Scope

        if scope not in list(Scope):
            raise usage(f"--scope is {', '.join(Scope)}, not {scope!r}")
        made = make_token(given_settings(), name, Scope(scope), unless_any=unless_any, file=file)
    if made is None:
        call.say("There is a token already.")
    elif call.json:
        call.print_json({"name": name, "scope": scope, "token": made} if file is None else {"file": str(file)})
    elif file is not None:
        call.say(f"[green]✓[/] the token is in {file}")
    else:
        typer.echo(made)


@token.command("revoke")
@command
def revoke_token(call: Call, name: Name) -> None:
    """See to it that a token is not accepted any more, from the next request on."""
    with failures_explained():
        from infra.given import given_settings
        from infra.tokens import revoke

        revoke(given_settings(), name)
    call.say(f"[green]✓[/] {name} is revoked")
