"""Messages that a service could not handle."""

from typing import Annotated

import typer

from infra.cli.call import Call, command, usage

app = typer.Typer(
    help="List, show and replay messages that failed for good.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
@command
def list_letters(call: Call) -> None:
    """List the dead letters, the oldest first."""
    from infra.cli.tables import moment

    call.print_list(
        "/dead-letters",
        "dead_letters",
        ["id", "died", "service", "subject", "tried", "reason"],
        lambda letter: (
            str(letter["id"]),
            moment(letter["died_at"]),
            letter["service"],
            letter["subject"],
            letter["deliveries"],
            letter["reason"],
        ),
        empty="There is no dead letter.",
    )


@app.command("show")
@command
def show_letter(
    call: Call, letter_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `list` shows it.")]
) -> None:
    """Show a dead letter: why it died, and what it says."""
    letter = call.api.get(f"/dead-letters/{letter_id}")
    if call.json:
        call.print_json(letter)
        return
    call.say(f"[bold]{letter['subject']}[/] for {letter['service']}, died {letter['died_at']}")
    call.print_table(
        ["", ""],
        [
            ("reason", letter["reason"]),
            ("tried", f"{letter['deliveries']} times"),
            ("event", letter["event_id"]),
            *letter["headers"].items(),
        ],
    )
    call.console.print_json(data=letter["body"])


@app.command("replay")
@command
def replay(
    call: Call,
    letter_ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", min=1, help="As `list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
) -> None:
    """Publish dead letters again on their own subjects; then they are none any more."""
    if everything == bool(letter_ids):
        raise usage("name the dead letters, or say --all")
    wanted = letter_ids or [letter["id"] for letter in call.api.entries("/dead-letters", "dead_letters")]
    if not wanted:
        call.say("There is no dead letter.")
    replayed = []
    for letter_id in wanted:
        letter = call.api.post(f"/dead-letters/{letter_id}/replay")
        replayed.append(letter)
        call.say(f"[green]✓[/] {letter['id']} published again on {letter['subject']}")
    if call.json:
        call.print_json({"dead_letters": replayed, "total": len(replayed)})
