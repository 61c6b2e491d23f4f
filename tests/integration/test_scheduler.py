"""Schedules on the real stack; the test is catalog and the user."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from contracts.messages import utc_now
from contracts.runs import Overlap, RejectionReason, RunFinished, RunRequested, RunStatus
from contracts.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FindSchedule,
    ListSchedules,
    Missed,
    Schedule,
    UpdateSchedule,
)
from infra.stacks.stack import Stack
from services.scheduler.service import serve
from shared.database import database
from shared.errors import Invalid, NotFound
from shared.settings import Settings
from tests.asking import Neighbours, neighbours, run_of
from tests.hearing import heard_all
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def they(stack: Stack) -> AsyncIterator[Neighbours]:
    async with neighbours(stack.settings) as they:
        yield they


@pytest.fixture
async def table(stack: Stack, service: None) -> AsyncIterator[asyncpg.Pool]:
    """The scheduler's tables: only time itself makes a schedule due, and a test does not wait for minutes to pass."""
    async with database(stack.settings, "scheduler", None) as table:
        yield table


@asynccontextmanager
async def serving(settings: Settings, they: Neighbours) -> AsyncIterator[None]:
    async with serve(settings):
        await eventually(lambda: they.gateway.ask(ListSchedules()))
        yield


@pytest.fixture
async def service(stack: Stack, they: Neighbours) -> AsyncIterator[None]:
    async with serving(stack.settings, they):
        yield


async def schedule(they: Neighbours, pipeline: str, cron: str = "0 3 * * *", **settings: Any) -> Schedule:
    namespace, layer, name = pipeline.split(".")
    query = CreateSchedule(namespace=namespace, layer=layer, pipeline=name, cron=cron, **settings)
    return await they.gateway.ask(query)


async def shown(they: Neighbours, made: Schedule) -> Schedule:
    return await they.gateway.ask(FindSchedule(schedule_id=made.id))


async def make_due(table: asyncpg.Pool, made: Schedule, at: datetime) -> None:
    await table.execute("update schedules set next_run_at = $2 where id = $1", made.id, at)
    await table.execute("select pg_notify('scheduler_due', '')")


async def is_gone(they: Neighbours, made: Schedule) -> bool:
    try:
        await shown(they, made)
    except NotFound:
        return True
    return False


# Making and showing


async def test_a_schedule_is_shown_listed_changed_and_removed(service: None, they: Neighbours) -> None:
    pipeline = they.pipeline()

    made = await schedule(they, pipeline, "30 6 * * *", timezone="Europe/Berlin")

    assert made.pipeline_id == they.pipelines[pipeline]
    assert made.cron == "30 6 * * *"
    assert made.enabled
    assert made.missed is Missed.LATEST
    assert made.overlap is Overlap.SKIP
    assert made.last_run_id is None
    assert made.next_run_at is not None
    assert made.next_run_at > utc_now()
    assert len(made.upcoming) == 5
    assert made.upcoming[0] > made.next_run_at
    listed = [one for one in (await they.gateway.ask(ListSchedules(limit=200))).schedules if one.id == made.id]
    assert listed == [made]
    changed = await they.gateway.ask(UpdateSchedule(schedule_id=made.id, cron="@hourly", missed=Missed.ALL))
    assert changed.cron == "@hourly"
    assert changed.timezone == "Europe/Berlin"
    assert changed.overlap is Overlap.QUEUE
    assert changed.next_run_at is not None
    assert changed.next_run_at - utc_now() < timedelta(hours=1)
    disabled = await they.gateway.ask(UpdateSchedule(schedule_id=made.id, enabled=False))
    assert disabled.next_run_at is None
    assert disabled.upcoming == []
    await they.gateway.ask(DeleteSchedule(schedule_id=made.id))
    assert await is_gone(they, made)
    with pytest.raises(NotFound):
        await they.gateway.ask(DeleteSchedule(schedule_id=made.id))


async def test_asking_twice_makes_one_schedule(service: None, they: Neighbours) -> None:
    pipeline, schedule_id = they.pipeline(), uuid4()

    first = await schedule(they, pipeline, id=schedule_id)
    again = await schedule(they, pipeline, id=schedule_id)

    assert first == again


async def test_what_cannot_be_scheduled_is_refused(service: None, they: Neighbours) -> None:
    pipeline = they.pipeline()

    with pytest.raises(NotFound, match=r"default\.bronze\.nowhere"):
        await schedule(they, "default.bronze.nowhere")
    with pytest.raises(Invalid, match="cron"):
        await schedule(they, pipeline, "0 3 * *")
    with pytest.raises(Invalid, match="timezone"):
        await schedule(they, pipeline, timezone="Mars/Olympus")
    with pytest.raises(Invalid, match="overlap"):
        await schedule(they, pipeline, missed=Missed.ALL, overlap=Overlap.SKIP)
    with pytest.raises(NotFound):
        await they.gateway.ask(UpdateSchedule(schedule_id=uuid4(), enabled=False))


# Firing


async def test_a_due_time_asks_for_a_run(service: None, they: Neighbours, table: asyncpg.Pool) -> None:
    pipeline = they.pipeline()
    made = await schedule(they, pipeline, "*/5 * * * *")
    soon = utc_now() + timedelta(seconds=0.5)

    await make_due(table, made, soon)

    [request] = await they.requested(pipeline, 1)
    assert request.occurred_at >= soon
    assert request.trigger == "schedule:*/5 * * * *"
    assert request.overlap is Overlap.SKIP
    assert request.asked_by == made.id
    assert request.pipeline_id == made.pipeline_id


async def test_missed_times_are_made_up_for_as_asked(service: None, they: Neighbours, table: asyncpg.Pool) -> None:
    latest_due = (utc_now() - timedelta(minutes=30)).replace(second=0, microsecond=0)
    first_due = latest_due - timedelta(hours=1)
    cron = f"{latest_due.minute} * * * *"
    none, latest, every_one = they.pipeline(), they.pipeline(), they.pipeline()
    for pipeline, missed in ((none, Missed.NONE), (latest, Missed.LATEST), (every_one, Missed.ALL)):
        await make_due(table, await schedule(they, pipeline, cron, missed=missed), first_due)

    made_up = await they.requested(every_one, 2)
    [newest] = await they.requested(latest, 1)

    assert [(request.dedupe_key or "")[37:] for request in made_up] == [first_due.isoformat(), latest_due.isoformat()]
    assert {request.overlap for request in made_up} == {Overlap.QUEUE}
    assert (newest.dedupe_key or "")[37:] == latest_due.isoformat()
    assert they.requests(none) == []


async def test_a_schedule_whose_time_zone_is_gone_says_so_and_stops_no_other(
    service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    lost, other = they.pipeline(), they.pipeline()
    adrift = await schedule(they, lost, "0 3 * * *")
    # As an update of the time zones leaves it that knows this one no more.
    await table.execute("update schedules set timezone = 'Mars/Olympus' where id = $1", adrift.id)
    due = utc_now() - timedelta(minutes=1)
    await make_due(table, adrift, due)

    await make_due(table, await schedule(they, other), due)

    await they.requested(other, 1)
    found = await shown(they, adrift)
    assert found.problem == "timezone: 'Mars/Olympus' is no IANA time zone, like Europe/Berlin"
    assert (found.next_run_at, found.upcoming) == (due, [])
    assert found in (await they.gateway.ask(ListSchedules(limit=200))).schedules
    assert they.requests(lost) == []
    with pytest.raises(Invalid, match="Mars/Olympus"):
        await they.gateway.ask(UpdateSchedule(schedule_id=adrift.id, enabled=True))
    disabled = await they.gateway.ask(UpdateSchedule(schedule_id=adrift.id, enabled=False))
    assert (disabled.enabled, disabled.next_run_at) == (False, None)


async def test_a_schedule_is_made_up_for_once_its_time_zone_is_known_again(
    service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    pipeline = they.pipeline()
    made = await schedule(they, pipeline, "0 3 * * *")
    await table.execute("update schedules set timezone = 'Mars/Olympus' where id = $1", made.id)
    await make_due(table, made, utc_now() - timedelta(minutes=1))
    await eventually(lambda: shown_problem(they, made))

    await table.execute("update schedules set timezone = 'UTC' where id = $1", made.id)
    await table.execute("select pg_notify('scheduler_due', '')")

    [request] = await they.requested(pipeline, 1)
    assert request.asked_by == made.id


async def shown_problem(they: Neighbours, made: Schedule) -> str | None:
    return (await shown(they, made)).problem


async def test_a_database_that_was_away_is_found_again(
    stack: Stack, service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    pipeline = they.pipeline()
    made = await schedule(they, pipeline, "0 0 1 1 *")
    soon = utc_now() + timedelta(seconds=1)
    await make_due(table, made, soon)

    await stack.kill("postgres")

    await they.requested(pipeline, 1)
    async with table.acquire() as again:
        following = await again.fetchval("select next_run_at from schedules where id = $1", made.id)
    assert following > utc_now()


async def test_several_replicas_ask_for_each_due_time_once(
    stack: Stack, service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    pipelines = [they.pipeline() for _ in range(60)]
    async with serving(stack.settings, they), serving(stack.settings, they):
        made = await asyncio.gather(*(schedule(they, pipeline, "0 0 1 1 *") for pipeline in pipelines))

        await table.execute(
            "update schedules set next_run_at = now() + interval '0.3 seconds' where id = any($1)",
            [one.id for one in made],
        )
        await table.execute("select pg_notify('scheduler_due', '')")

        for pipeline in pipelines:
            await they.requested(pipeline, 1)
    for one in made:
        following = (await shown(they, one)).next_run_at
        assert following is not None
        assert following > utc_now()


async def test_a_schedule_that_changes_wakes_every_replica(
    stack: Stack, service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    pipeline = they.pipeline()
    made = await schedule(they, pipeline, enabled=False)
    async with serving(stack.settings, they):
        await table.execute(
            "update schedules set enabled = true, next_run_at = $2 where id = $1", made.id, utc_now() - timedelta(1)
        )

        await they.gateway.ask(UpdateSchedule(schedule_id=made.id, missed=Missed.LATEST))

        await they.requested(pipeline, 1, within=15)


async def fires_within(lateness: timedelta, they: Neighbours, table: asyncpg.Pool) -> bool:
    """Whether a new schedule fires so soon after its time: at least once it does, however busy the machine is."""
    pipeline = they.pipeline()
    soon = utc_now() + timedelta(seconds=0.5)
    await make_due(table, await schedule(they, pipeline, "0 0 1 1 *"), soon)
    [request] = await they.requested(pipeline, 1)
    return request.occurred_at - soon < lateness


async def test_among_ten_schedules_one_fires_on_time(service: None, they: Neighbours, table: asyncpg.Pool) -> None:
    for _ in range(10):
        await schedule(they, they.pipeline())

    await eventually(lambda: fires_within(timedelta(milliseconds=100), they, table))


async def test_among_a_hundred_thousand_schedules_one_still_fires_on_time(
    service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    crowd = uuid4()
    await table.execute(
        """
        insert into schedules
          (id, pipeline_id, pipeline, cron, timezone, enabled, missed, overlap, next_run_at, created_at, updated_at)
        select gen_random_uuid(), $1, 'default.bronze.crowd', '0 0 1 1 *', 'UTC', true, 'latest', 'skip',
          now() + interval '1 day' + i * interval '1 second', now(), now()
        from generate_series(1, 100000) as i
        """,
        crowd,
    )
    try:
        await eventually(lambda: fires_within(timedelta(milliseconds=100), they, table))
    finally:
        await table.execute("delete from schedules where pipeline_id = $1", crowd)


# What has become of the runs


async def asked(they: Neighbours, table: asyncpg.Pool) -> tuple[str, Schedule, RunRequested]:
    pipeline = they.pipeline()
    made = await schedule(they, pipeline, "0 0 1 1 *")
    await make_due(table, made, utc_now())
    [request] = await they.requested(pipeline, 1)
    return pipeline, made, request


async def test_the_last_run_is_one_that_was_recorded(service: None, they: Neighbours, table: asyncpg.Pool) -> None:
    pipeline, made, request = await asked(they, table)
    assert (await shown(they, made)).last_run_id is None

    await they.finish(run_of(request), pipeline, RunStatus.FAILED)

    async def remembered() -> Schedule | None:
        now = await shown(they, made)
        return now if now.last_run_id == run_of(request) else None

    now = await eventually(remembered)
    assert now.last_run_at == request.occurred_at


async def test_a_rejected_request_leaves_the_last_run_as_it_was(
    stack: Stack, service: None, they: Neighbours, table: asyncpg.Pool
) -> None:
    pipeline, made, request = await asked(they, table)

    async def forgotten() -> bool:
        return await table.fetchval("select count(*) from asked_runs where schedule_id = $1", made.id) == 0

    await they.reject(request, RejectionReason.OVERLAP)
    await eventually(forgotten)
    await they.finish(run_of(request), pipeline)
    await heard_all(stack.settings, "scheduler", RunFinished)

    assert (await shown(they, made)).last_run_id is None


@pytest.mark.parametrize("heard", ["pipeline.removed", "run.rejected"])
async def test_a_removed_pipeline_takes_its_schedules_with_it(
    service: None, they: Neighbours, table: asyncpg.Pool, heard: str
) -> None:
    pipeline, made, request = await asked(they, table)
    bystander = await schedule(they, they.pipeline())

    if heard == "pipeline.removed":
        await they.remove(pipeline)
    else:
        await they.reject(request, RejectionReason.PIPELINE_REMOVED)

    await eventually(lambda: is_gone(they, made))
    assert not await is_gone(they, bystander)
