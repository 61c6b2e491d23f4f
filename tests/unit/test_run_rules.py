"""The rules of claims, outages and silence that need a clock; `test_run_model.py` explores the rest."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from contracts.runs import ClaimReason, ErrorKind, Overlap, RejectionReason, RunRequested, RunStatus
from services.catalog.runs.domain import (
    Claim,
    GiveAttempt,
    Limits,
    OrderEnd,
    PipelineState,
    RefuseOver,
    RefuseSuperseded,
    RunState,
    is_to_be_queued_again,
    judge_claim,
    rejection,
)

NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
LIMITS = Limits(outage=timedelta(hours=1), silence=timedelta(minutes=2), unclaimed=timedelta(hours=2))
QUEUED = RunState(queue_number=1, heard_at=NOW)
RUNNING = replace(QUEUED, status=RunStatus.RUNNING, attempt=1, claimed_at=NOW, head="7")


def claim(reason: ClaimReason = ClaimReason.DELIVERY, follows: int | None = None, queue_number: int = 1) -> Claim:
    return Claim(queue_number=queue_number, reason=reason, follows=follows, head="9")


def test_the_first_attempt_notes_mains_head_and_later_ones_keep_it() -> None:
    first = judge_claim(QUEUED, claim(), NOW, LIMITS)
    assert isinstance(first, GiveAttempt)
    assert (first.state.attempt, first.state.head, first.state.status) == (1, "9", RunStatus.RUNNING)

    second = judge_claim(RUNNING, claim(), NOW, LIMITS)
    assert isinstance(second, GiveAttempt)
    assert (second.state.attempt, second.state.head) == (2, "7")


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED])
def test_there_is_nothing_left_to_do_for_a_run_that_has_ended(status: RunStatus) -> None:
    assert judge_claim(replace(RUNNING, status=status), claim(), NOW, LIMITS) == RefuseOver()


def test_a_claim_under_an_older_message_is_over() -> None:
    assert judge_claim(replace(RUNNING, queue_number=2), claim(), NOW, LIMITS) == RefuseOver()


@pytest.mark.parametrize("reason", [reason for reason in ClaimReason if reason is not ClaimReason.DELIVERY])
def test_only_the_newest_attempt_is_followed(reason: ClaimReason) -> None:
    run = replace(RUNNING, attempt=3)

    assert judge_claim(run, claim(reason, follows=2), NOW, LIMITS) == RefuseSuperseded()
    assert isinstance(judge_claim(run, claim(reason, follows=3), NOW, LIMITS), GiveAttempt)


def test_a_claim_that_was_answered_is_answered_the_same() -> None:
    asked_again = replace(claim(), answered_with=1)

    assert judge_claim(RUNNING, asked_again, NOW, LIMITS) == GiveAttempt(RUNNING, is_new=False)
    assert judge_claim(replace(RUNNING, attempt=2), asked_again, NOW, LIMITS) == RefuseSuperseded()


def test_each_reason_is_counted_by_itself() -> None:
    verdict = judge_claim(RUNNING, claim(ClaimReason.CONFLICT, follows=1), NOW, LIMITS)

    assert isinstance(verdict, GiveAttempt)
    assert (verdict.state.conflicts, verdict.state.retries, verdict.state.file_changes) == (1, 0, 0)


def test_an_outage_of_an_hour_ends_a_run_and_a_shorter_one_does_not() -> None:
    run, now = RUNNING, NOW
    while now < NOW + timedelta(hours=1):
        verdict = judge_claim(run, claim(ClaimReason.UNAVAILABLE, follows=run.attempt), now, LIMITS)
        assert isinstance(verdict, GiveAttempt)
        run, now = verdict.state, now + timedelta(minutes=1)

    verdict = judge_claim(run, claim(ClaimReason.UNAVAILABLE, follows=run.attempt), now, LIMITS)

    assert isinstance(verdict, OrderEnd)
    assert (verdict.ending.status, verdict.ending.kind) == (RunStatus.FAILED, ErrorKind.UNAVAILABLE)


def test_outages_with_long_work_in_between_are_not_one() -> None:
    verdict = judge_claim(
        replace(RUNNING, outage_since=NOW - timedelta(hours=3), claimed_at=NOW - timedelta(hours=2)),
        claim(ClaimReason.UNAVAILABLE, follows=1),
        NOW,
        LIMITS,
    )

    assert isinstance(verdict, GiveAttempt)
    assert verdict.state.outage_since == NOW


def test_a_runner_that_speaks_breaks_the_row_of_lost_ones() -> None:
    run = replace(RUNNING, lost_in_a_row=4)

    spoken = judge_claim(run, claim(ClaimReason.RETRY, follows=1), NOW, LIMITS)
    assert isinstance(spoken, GiveAttempt)
    assert spoken.state.lost_in_a_row == 0
    assert isinstance(judge_claim(run, claim(), NOW, LIMITS), OrderEnd)


def test_once_the_end_is_ordered_no_attempt_is_given() -> None:
    ordered = judge_claim(replace(RUNNING, cancel_requested=True), claim(), NOW, LIMITS)
    assert isinstance(ordered, OrderEnd)
    assert ordered.state.attempt == 1

    again = judge_claim(replace(ordered.state, cancel_requested=False), claim(), NOW, LIMITS)

    assert isinstance(again, OrderEnd)
    assert again.ending.status is RunStatus.CANCELLED


@pytest.mark.parametrize(
    ("run", "waited", "again"),
    [
        (RUNNING, timedelta(minutes=1), False),
        (RUNNING, timedelta(minutes=2), True),
        (QUEUED, timedelta(minutes=2), False),
        (QUEUED, timedelta(hours=2), True),
        (replace(RUNNING, status=RunStatus.FAILED), timedelta(days=1), False),
        (RunState(), timedelta(days=1), False),
    ],
)
def test_silence_is_borne_for_as_long_as_is_said(run: RunState, waited: timedelta, again: bool) -> None:
    assert is_to_be_queued_again(run, NOW + waited, LIMITS) is again


@pytest.mark.parametrize(
    ("facts", "pipeline", "reason"),
    [
        ({}, None, RejectionReason.UNKNOWN_PIPELINE),
        ({"pipeline_id": uuid4()}, None, RejectionReason.PIPELINE_REMOVED),
        ({"pipeline_id": uuid4()}, PipelineState(False, True, False), RejectionReason.PIPELINE_REMOVED),
        ({"trigger": "event:x"}, PipelineState(True, False, False), RejectionReason.UNPUBLISHED),
        ({}, PipelineState(True, False, False), None),
        ({"overlap": Overlap.SKIP}, PipelineState(True, True, True), RejectionReason.OVERLAP),
        ({}, PipelineState(True, True, True), None),
    ],
)
def test_a_request_is_rejected_for_its_reason_or_becomes_a_run(
    facts: dict[str, Any], pipeline: PipelineState | None, reason: RejectionReason | None
) -> None:
    request = RunRequested(**{"pipeline": "default.bronze.orders", "trigger": "manual", **facts})

    found = rejection(request, pipeline)

    assert (found.reason if found else None) is reason
