"""What runs pipelines by itself: triggers and schedules."""

from typing import Annotated, Any
from uuid import UUID

import typer

from infra.cli.call import Call, command, usage
from infra.cli.names import PIPELINE, path_of, split, split_zone

trigger = typer.Typer(
    help="What wakes a pipeline: a file that lands, another pipeline.", no_args_is_help=True, rich_markup_mode=None
)
schedule = typer.Typer(help="What runs a pipeline by the clock.", no_args_is_help=True, rich_markup_mode=None)

_ID = typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)


@trigger.command("list")
@command
def list_triggers(call: Call, pipeline: Annotated[str, PIPELINE]) -> None:
    """List the triggers of a pipeline."""
    from infra.cli.tables import moment

    call.print_list(
        _triggers(pipeline),
        "triggers",
        ["trigger", "wakes on", "cooldown", "enabled", "last fired"],
        lambda one: (
            one["id"],
            _occasion(one),
            f"{one['cooldown_seconds']} s",
            one["enabled"],
            moment(one["last_triggered_at"]),
        ),
        empty="It has no trigger.",
    )


@trigger.command("add")
@command
def add_trigger(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="ZONE", help="Wake it when a file lands in this landing zone.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="PIPELINE", help="Wake it when a run of this pipeline succeeds.")
    ] = None,
    cooldown: Annotated[
        int, typer.Option("--cooldown", metavar="SECONDS", min=0, help="Run it no more often; nothing is missed.")
    ] = 0,
) -> None:
    """Wake a pipeline when a file lands, or when another pipeline succeeds."""
    wanted = {**_wanted(zone, after), "cooldown_seconds": cooldown}
    made = call.api.post(_triggers(pipeline), wanted)
    if call.json:
        call.print_json(made)
    else:
        call.say(f"[green]✓[/] {_dotted(pipeline)} wakes on {_occasion(made)}: trigger {made['id']}")


@trigger.command("remove")
@command
def remove_trigger(call: Call, pipeline: Annotated[str, PIPELINE], trigger_id: Annotated[UUID, _ID]) -> None:
    """Remove a trigger of a pipeline."""
    call.api.delete(f"{_triggers(pipeline)}/{trigger_id}")
    call.say(f"[green]✓[/] {_dotted(pipeline)} has no trigger {trigger_id} any more")


@trigger.command("decisions")
@command
def decisions(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    trigger_id: Annotated[UUID, _ID],
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="The most decisions.")] = 20,
) -> None:
    """Show what a trigger decided on each event, and why; the newest first."""
    page = call.api.get(f"{_triggers(pipeline)}/{trigger_id}/decisions", limit=limit)
    if call.json:
        call.print_json(page)
        return
    from infra.cli.tables import moment

    call.print_table(
        ["when", "event", "decision", "reason", "run"],
        [
            (moment(one["created_at"]), one["event"], one["decision"], one["reason"], one["run_id"])
            for one in page["decisions"]
        ],
        empty="It has decided nothing yet.",
    )


@schedule.command("list")
@command
def list_schedules(call: Call) -> None:
    """List the schedules."""
    from infra.cli.tables import moment

    pipelines = call.api.entries("/pipelines", "pipelines")
    names = {one["id"]: f"{one['namespace']}.{one['layer']}.{one['name']}" for one in pipelines}
    call.print_list(
        "/schedules",
        "schedules",
        ["schedule", "pipeline", "cron", "time zone", "enabled", "last run", "next run"],
        lambda one: (
            one["id"],
            names.get(one["pipeline_id"], one["pipeline_id"]),
            one["cron"],
            one["timezone"],
            one["enabled"],
            moment(one["last_run_at"]),
            one.get("problem") or moment(one["next_run_at"]),
        ),
        empty="There is no schedule.",
    )


@schedule.command("add")
@command
def add_schedule(
    call: Call,
    pipeline: Annotated[str, PIPELINE],
    cron: Annotated[str, typer.Argument(metavar="CRON", help="As '0 6 * * 1-5' or @hourly.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="As Europe/Vienna.")] = "UTC",
) -> None:
    """Run a pipeline by the clock."""
    namespace, layer, name = split(pipeline)
    wanted = {"namespace": namespace, "layer": layer, "pipeline": name, "cron": cron, "timezone": timezone}
    made = call.api.post("/schedules", wanted)
    if call.json:
        call.print_json(made)
        return
    from infra.cli.tables import moment

    call.say(
        f"[green]✓[/] {_dotted(pipeline)} runs next at {moment(made['next_run_at']):%Y-%m-%d %H:%M %Z}:"
        f" schedule {made['id']}"
    )


@schedule.command("remove")
@command
def remove_schedule(call: Call, schedule_id: Annotated[UUID, _ID]) -> None:
    """Remove a schedule."""
    call.api.delete(f"/schedules/{schedule_id}")
    call.say(f"[green]✓[/] there is no schedule {schedule_id} any more")


def _triggers(pipeline: str) -> str:
    return f"{path_of(pipeline)}/triggers"


def _dotted(pipeline: str) -> str:
    return ".".join(split(pipeline))


def _wanted(zone: str | None, after: str | None) -> dict[str, Any]:
    match zone, after:
        case str(), None:
            namespace, name = split_zone(zone)
            return {"type": "landing_zone_upload", "config": {"namespace": namespace, "zone_name": name}}
        case None, str():
            namespace, layer, name = split(after)
            return {
                "type": "pipeline_success",
                "config": {"namespace": namespace, "layer": layer, "pipeline": name},
            }
        case _:
            raise usage("say what wakes the pipeline: either --zone ZONE or --after PIPELINE")


def _occasion(found: dict[str, Any]) -> str:
    """What a trigger waits for, as people say it."""
    match found:
        case {"type": "landing_zone_upload", "config": {"namespace": namespace, "zone_name": zone}}:
            return f"files in {namespace}/{zone}"
        case {"type": "pipeline_success", "config": {"namespace": namespace, "layer": layer, "pipeline": name}}:
            return f"success of {namespace}.{layer}.{name}"
        case _:
            return str(found["type"])
