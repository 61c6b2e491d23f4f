"""When main shows for certain whether a run has merged: a closed branch's merge may come a while later."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from services.runner.domain import branch_name, until_settled

RUN = uuid4()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WITHIN = timedelta(seconds=10)


def closings(**minutes: int) -> dict[str, datetime]:
    return {branch_name(RUN, int(name[1:])): NOON + timedelta(minutes=minute) for name, minute in minutes.items()}


def test_a_merge_that_nobody_saw_answered_may_come_until_long_after_its_branch_was_closed() -> None:
    settled = until_settled(closings(_1=1, _2=5, _3=9), RUN, 2, answered=frozenset({1}), within=WITHIN)

    assert settled == NOON + timedelta(minutes=5, seconds=10)


def test_what_was_answered_or_is_newer_is_not_waited_for() -> None:
    assert until_settled(closings(_1=1, _2=5), RUN, 1, answered=frozenset({1}), within=WITHIN) is None
    assert until_settled({}, RUN, 3, answered=frozenset(), within=WITHIN) is None
    assert until_settled({"run-of-somebody-else-1": NOON}, RUN, 3, answered=frozenset(), within=WITHIN) is None
