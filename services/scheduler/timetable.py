"""Cron expressions in a time zone: which moments they name, through every change of summer time.

A time on the wall that does not exist (skipped by the change) stands for the moment of the change; one that occurs
twice stands for its first occurrence (`triggers.md`, Schedules).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from shared.errors import Invalid

_ALIASES: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_NAMES: Final = frozenset(
    "jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat l w".split()  # noqa: SIM905
)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Timetable:
    """The moments that a cron expression names in a time zone; made by `timetable`, which checks both."""

    cron: str
    timezone: str

    def next_after(self, moment: datetime) -> datetime:
        """The first time after a moment."""
        return next(self.times_after(moment))

    def times_after(self, moment: datetime) -> Iterator[datetime]:
        """The times after a moment, one after the other."""
        wall = _minute_of(moment.astimezone(self._zone))
        last = moment
        times = croniter(self.cron, wall)
        while True:
            time = self._moment(times.get_next(datetime))
            if time > last:
                last = time
                yield time

    def latest(self, since: datetime, until: datetime, count: int) -> tuple[datetime, ...]:
        """The latest times from `since` to `until`, both included, at the most `count` of them, the oldest first."""
        found: list[datetime] = []
        for time in self._times_back_from(until):
            if time < since or len(found) == count:
                break
            if not found or time < found[-1]:
                found.append(time)
        return tuple(reversed(found))

    def _times_back_from(self, moment: datetime) -> Iterator[datetime]:
        local = moment.astimezone(self._zone)
        wall = _minute_of(local)
        if local.fold:
            # Times up to the end of the repeated hour are past: they stood for its first occurrence.
            wall += _offset(local.replace(fold=0)) - _offset(local)
        times = croniter(self.cron, wall + _MINUTE)
        while True:
            try:
                time = self._moment(times.get_prev(datetime))
            except CroniterBadDateError:
                return
            if time <= moment:
                yield time

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def _moment(self, wall: datetime) -> datetime:
        """The moment that a time on the wall stands for."""
        local = wall.replace(tzinfo=self._zone)
        before, after = _offset(local), _offset(local.replace(fold=1))
        if after <= before:  # it exists; where it occurs twice, this is its first occurrence
            return local.astimezone(UTC)
        earliest = (wall - after).replace(tzinfo=UTC)
        latest = (wall - before).replace(tzinfo=UTC)
        while latest - earliest > timedelta(seconds=1):
            middle = (earliest + (latest - earliest) / 2).replace(microsecond=0)
            if _offset(middle.astimezone(self._zone)) == before:
                earliest = middle
            else:
                latest = middle
        return latest


def timetable(cron: str, timezone: str) -> Timetable:
    """The timetable of a cron expression of five fields, or `@hourly` and the like, in an IANA time zone.

    `Invalid` says what is wrong with either, and refuses what names no moment at all, like the 30th of February.
    """
    cron = " ".join(cron.split())
    _check_timezone(timezone)
    _check_cron(cron)
    checked = Timetable(cron, timezone)
    try:
        checked.next_after(datetime(2000, 1, 1, tzinfo=UTC))
    except CroniterBadCronError as error:
        raise Invalid(f"cron: {cron!r} cannot be understood: {error}") from error
    except CroniterBadDateError as error:
        raise Invalid(f"cron: {cron!r} names no time that ever comes") from error
    return checked


def problem(times: Timetable) -> str | None:
    """Why the times cannot be worked out that once could be: an update of the time zones has taken theirs away."""
    try:
        timetable(times.cron, times.timezone)
    except Invalid as error:
        return error.message
    return None


def _check_timezone(timezone: str) -> None:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"timezone: {timezone!r} is no IANA time zone, like Europe/Berlin") from error


def _check_cron(cron: str) -> None:
    if cron.lower() in _ALIASES:
        return
    if len(cron.split()) != 5:
        raise Invalid(
            f"cron: {cron!r} has not five fields (minute, hour, day of month, month, day of week), "
            f"nor is it one of {', '.join(_ALIASES)}"
        )
    # The library also knows random and hashed times, which no two replicas would agree on.
    for word in re.findall(r"[a-z]+", cron.lower()):
        if word not in _NAMES:
            raise Invalid(f"cron: {cron!r} has {word!r}, which is neither a month nor a day of the week")


def _minute_of(local: datetime) -> datetime:
    return local.replace(tzinfo=None, fold=0, second=0, microsecond=0)


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None, "the time has a zone"
    return offset
