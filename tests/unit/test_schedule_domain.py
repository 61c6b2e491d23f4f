"""The rules of schedules: cron in a time zone, summer time, missed times."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.runs import Overlap
from contracts.schedules import CreateSchedule, Missed, UpdateSchedule
from services.scheduler.domain import ScheduleState, advanced, changed_schedule, due_runs, new_schedule, upcoming
from services.scheduler.timetable import timetable
from shared.errors import Invalid

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def local_times(cron: str, zone: str, after: str, count: int) -> list[str]:
    moment = datetime.fromisoformat(after)
    times = islice(timetable(cron, zone).times_after(moment), count)
    return [time.astimezone(ZoneInfo(zone)).isoformat() for time in times]


def a_schedule(cron: str = "*/10 * * * *", **settings: object) -> ScheduleState:
    query = CreateSchedule.model_validate(
        {
            "id": UUID(int=1),
            "namespace": "default",
            "layer": "bronze",
            "pipeline": "flights",
            "cron": cron,
            **settings,
        }
    )
    return new_schedule(query, UUID(int=2), NOON)


def test_the_next_time_is_worked_out_when_a_schedule_is_made() -> None:
    schedule = a_schedule()

    assert schedule.next_run_at == NOON + timedelta(minutes=10)
    assert upcoming(schedule.timetable, schedule.next_run_at) == [
        NOON + timedelta(minutes=minutes) for minutes in (20, 30, 40, 50, 60)
    ]


@pytest.mark.parametrize(
    ("cron", "following"),
    [
        ("@hourly", "2026-03-01T13:00:00+00:00"),
        ("@Daily", "2026-03-02T00:00:00+00:00"),
        ("@weekly", "2026-03-08T00:00:00+00:00"),
        ("@monthly", "2026-04-01T00:00:00+00:00"),
        ("@yearly", "2027-01-01T00:00:00+00:00"),
        ("30 6 * * mon-fri", "2026-03-02T06:30:00+00:00"),
        (" 0  0 29 2 * ", "2028-02-29T00:00:00+00:00"),
        ("0 0 L * *", "2026-03-31T00:00:00+00:00"),
        ("0 9 13 * fri", "2026-03-06T09:00:00+00:00"),
    ],
)
def test_cron_says_what_everybody_expects(cron: str, following: str) -> None:
    assert timetable(cron, "UTC").next_after(NOON) == datetime.fromisoformat(following)


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("", "not five fields"),
        ("* * * *", "not five fields"),
        ("0 * * * * *", "not five fields"),
        ("@reboot", "not five fields"),
        ("61 * * * *", "out of range"),
        ("R R * * *", "neither a month nor a day"),
        ("H * * * *", "neither a month nor a day"),
        ("0 0 30 2 *", "no time that ever comes"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_a_reason(cron: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        timetable(cron, "UTC")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(Invalid, match="no IANA time zone"):
        timetable("@daily", zone)


def test_a_time_that_does_not_exist_fires_once_at_the_change() -> None:
    assert local_times("30 2 * * *", BERLIN, "2026-03-27T12:00:00+00:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_several_times_that_do_not_exist_fire_once_together() -> None:
    assert local_times("*/20 * * * *", BERLIN, "2026-03-29T00:30:00+00:00", 3) == [
        "2026-03-29T01:40:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:20:00+02:00",
    ]


def test_a_time_that_occurs_twice_fires_once() -> None:
    assert local_times("30 2 * * *", BERLIN, "2026-10-24T12:00:00+00:00", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_within_the_repeated_hour_the_next_time_is_after_it() -> None:
    assert local_times("*/30 * * * *", BERLIN, "2026-10-25T01:10:00+00:00", 1) == ["2026-10-25T03:00:00+01:00"]


def test_a_skipped_day_stands_for_the_change() -> None:
    assert local_times("0 12 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00+00:00", 1) == ["2011-12-31T00:00:00+14:00"]


def test_a_half_hour_change_is_a_change() -> None:
    assert local_times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00+00:00", 1) == [
        "2026-10-04T02:30:00+11:00"
    ]


CRONS = ["* * * * *", "*/7 * * * *", "30 * * * *", "30 2 * * *", "0 3 * * *", "0 0,2,3 * * 0", "15 1 1 * *", "@daily"]
ZONES = [
    "UTC",
    BERLIN,
    "America/New_York",
    "Europe/Dublin",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
]
# Both changes of 2026 in most of these zones lie in these months.
MOMENTS = st.datetimes(datetime(2026, 2, 25), datetime(2026, 11, 10), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(CRONS), st.sampled_from(ZONES), MOMENTS)
def test_times_go_forward_and_the_way_back_meets_the_same(cron: str, zone: str, moment: datetime) -> None:
    times = timetable(cron, zone)

    forward = list(islice(times.times_after(moment), 30))

    assert all(earlier < later for earlier, later in pairwise([moment, *forward]))
    assert times.latest(moment + timedelta(microseconds=1), forward[-1], 100) == tuple(forward)
    assert times.latest(moment + timedelta(microseconds=1), forward[-1], 3) == tuple(forward[-3:])
    assert times.latest(forward[0] + timedelta(microseconds=1), forward[1] - timedelta(microseconds=1), 3) == ()


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(ZONES), MOMENTS, st.integers(0, 23), st.integers(0, 59))
def test_a_daily_time_fires_once_a_day_whatever_the_day(zone: str, moment: datetime, hour: int, minute: int) -> None:
    first, second, third = islice(timetable(f"{minute} {hour} * * *", zone).times_after(moment), 3)

    days = [time.astimezone(ZoneInfo(zone)).date() for time in (first, second, third)]
    assert days == [days[0], days[0] + timedelta(days=1), days[0] + timedelta(days=2)]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(CRONS), st.sampled_from(ZONES), MOMENTS, st.sampled_from(Missed), st.data())
def test_however_often_one_looks_each_time_is_asked_for_at_most_once(
    cron: str, zone: str, moment: datetime, missed: Missed, data: st.DataObject
) -> None:
    schedule = a_schedule(cron, timezone=zone, missed=missed)
    assert schedule.next_run_at is not None
    now = schedule.next_run_at
    keys: list[str] = []

    for _ in range(6):
        now += timedelta(seconds=data.draw(st.integers(0, 10_000)))
        requests = due_runs(schedule, now)
        keys += [request.dedupe_key or "" for request in requests]
        if requests or now >= schedule.next_run_at:
            schedule = advanced(schedule, now)
            assert schedule.next_run_at is not None
            assert schedule.next_run_at > now

    assert len(keys) == len(set(keys))
    assert keys == sorted(keys)


def test_a_due_run_is_asked_for_with_what_catalog_needs_to_know() -> None:
    schedule = a_schedule()

    (request,) = due_runs(schedule, NOON + timedelta(minutes=10))

    assert request.pipeline == "default.bronze.flights"
    assert request.trigger == "schedule:*/10 * * * *"
    assert request.overlap is Overlap.SKIP
    assert request.pipeline_id == UUID(int=2)
    assert request.asked_by == UUID(int=1)
    assert request.dedupe_key == f"{UUID(int=1)}:2026-03-01T12:10:00+00:00"
    assert due_runs(schedule, NOON + timedelta(minutes=9, seconds=59)) == ()


def dues(schedule: ScheduleState, now: datetime) -> list[str]:
    return [(request.dedupe_key or "")[37:] for request in due_runs(schedule, now)]


def test_of_missed_times_the_latest_is_made_up_for() -> None:
    assert dues(a_schedule(), NOON + timedelta(minutes=35)) == ["2026-03-01T12:30:00+00:00"]


def test_all_missed_times_are_made_up_for_where_asked() -> None:
    schedule = a_schedule(missed="all")

    assert schedule.overlap is Overlap.QUEUE
    assert dues(schedule, NOON + timedelta(minutes=35)) == [
        "2026-03-01T12:10:00+00:00",
        "2026-03-01T12:20:00+00:00",
        "2026-03-01T12:30:00+00:00",
    ]


def test_all_means_a_hundred_at_the_most_the_latest_ones() -> None:
    asked = dues(a_schedule("* * * * *", missed="all"), NOON + timedelta(days=300))

    assert len(asked) == 100
    assert asked[-1] == (NOON + timedelta(days=300)).isoformat()


def test_no_missed_time_is_made_up_for_where_asked_but_one_on_time_fires() -> None:
    schedule = a_schedule(missed="none")

    assert dues(schedule, NOON + timedelta(minutes=35)) == []
    assert dues(schedule, NOON + timedelta(minutes=30, seconds=20)) == ["2026-03-01T12:30:00+00:00"]


@pytest.mark.parametrize("missed", Missed)
def test_a_time_that_was_announced_is_due_even_if_the_rules_of_its_zone_were_changed(missed: Missed) -> None:
    announced = NOON + timedelta(minutes=3)
    schedule = replace(a_schedule(missed=missed), next_run_at=announced)

    assert dues(schedule, announced + timedelta(seconds=1)) == [announced.isoformat()]


def test_a_run_for_each_missed_time_contradicts_skipping() -> None:
    with pytest.raises(Invalid, match="needs overlap: queue"):
        a_schedule(missed="all", overlap="skip")


def changed(schedule: ScheduleState, now: datetime, **wanted: object) -> ScheduleState:
    return changed_schedule(schedule, UpdateSchedule.model_validate({"schedule_id": schedule.id, **wanted}), now)


def test_a_change_of_what_is_no_time_leaves_what_is_due() -> None:
    late = NOON + timedelta(hours=1)

    schedule = changed(a_schedule(), late, missed="all")

    assert schedule.next_run_at == NOON + timedelta(minutes=10)
    assert schedule.overlap is Overlap.QUEUE


def test_a_change_of_the_time_starts_from_now() -> None:
    schedule = changed(a_schedule(), NOON + timedelta(hours=1), cron="5 * * * *")

    assert schedule.next_run_at == NOON + timedelta(hours=1, minutes=5)


def test_a_disabled_schedule_is_never_due_and_makes_up_for_nothing_later() -> None:
    disabled = changed(a_schedule(), NOON + timedelta(minutes=5), enabled=False)
    enabled = changed(disabled, NOON + timedelta(hours=2), enabled=True)

    assert disabled.next_run_at is None
    assert upcoming(disabled.timetable, disabled.next_run_at) == []
    assert due_runs(disabled, NOON + timedelta(hours=1)) == ()
    assert enabled.next_run_at == NOON + timedelta(hours=2, minutes=10)
