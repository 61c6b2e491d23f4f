"""The rules of the run protocol that a runner keeps, one by one; `test_run_model.py` has them all at once."""

from uuid import UUID

import pytest

from contracts.reports import QualityResult, Severity
from contracts.runs import Attempt, AttemptState, ClaimReason, EndRun, ErrorKind, Over, RunStatus, Superseded
from services.runner.domain import (
    MAX_CONFLICTS,
    MAX_FILE_CHANGES,
    MAX_LOST_PROCESSES,
    ClaimAgain,
    Fail,
    FailureKind,
    FilesState,
    Forget,
    MergeOutcome,
    OrderedEnd,
    Patience,
    Stop,
    Succeed,
    Work,
    after_check,
    after_claim,
    after_failure,
    after_files,
    after_merge,
    after_tests,
    branch_name,
    branches_to_end,
    bytes_as_said,
    end_of,
    older_branches,
    outage_pause,
    patience_after,
)
from services.runner.watch import Allowance

RUN, OTHER = UUID(int=1), UUID(int=11)


def attempt(**counts: int) -> Attempt:
    return Attempt(
        run_id=RUN,
        attempt=3,
        pipeline="default.bronze.orders",
        pipeline_id=UUID(int=2),
        version=1,
        trigger="manual",
        files=[],
        parameters={},
        dry_run=False,
        head="0",
        **counts,
    )


def test_an_attempt_closes_older_branches_of_its_run_and_never_newer_ones() -> None:
    branches = [branch_name(RUN, number) for number in (1, 2, 3, 10)] + [branch_name(OTHER, 1), "run-x", "main"]

    assert older_branches(branches, RUN, 3) == [branch_name(RUN, 1), branch_name(RUN, 2)]
    assert branches_to_end(branches, RUN, 3) == [branch_name(RUN, number) for number in (1, 2, 3)]


def test_the_branch_of_an_attempt_is_closed_even_if_it_was_not_made_yet() -> None:
    assert branches_to_end([], RUN, 2) == [branch_name(RUN, 2)]
    assert branches_to_end([], RUN, 0) == []


def test_catalogs_answer_to_a_claim_is_done_as_it_says() -> None:
    order = EndRun(
        run_id=RUN,
        attempt=3,
        pipeline="default.bronze.orders",
        pipeline_id=UUID(int=2),
        dry_run=False,
        head="0",
        status=RunStatus.CANCELLED,
        error="cancelled on request",
        error_kind=ErrorKind.CANCELLED,
    )

    assert after_claim(attempt()) == Work()
    assert after_claim(order) == OrderedEnd(order)
    assert after_claim(Over()) == Forget()
    assert after_claim(Superseded()) == Stop()


def test_nothing_is_written_by_an_attempt_that_is_not_the_newest_or_not_wanted() -> None:
    assert after_check(AttemptState(is_newest=True, is_wanted=True)) == Work()
    assert after_check(AttemptState(is_newest=False, is_wanted=True)) == Stop()
    assert after_check(AttemptState(is_newest=False, is_wanted=False)) == Stop()
    assert isinstance(after_check(AttemptState(is_newest=True, is_wanted=False)), ClaimAgain)


def test_what_is_on_main_is_a_success_of_the_attempt_that_merged() -> None:
    assert end_of(RunStatus.CANCELLED, 3, 2) == (RunStatus.SUCCESS, 2)
    assert end_of(RunStatus.CANCELLED, 3, None) == (RunStatus.CANCELLED, 3)


def test_files_that_changed_make_the_run_start_again_a_bounded_number_of_times() -> None:
    again = after_files(FilesState.CHANGED, ["a"], attempt())
    last = after_files(FilesState.CHANGED, ["b", "a"], attempt(file_changes=MAX_FILE_CHANGES))

    assert isinstance(again, ClaimAgain)
    assert again.reason is ClaimReason.FILES_CHANGED
    assert isinstance(last, Fail)
    assert last.error.endswith("a, b")
    assert after_files(FilesState.UNCHANGED, [], attempt()) == Work()


def test_a_run_that_is_over_for_its_files_is_not_acknowledged_as_a_newer_attempt_may_have_it() -> None:
    assert after_files(FilesState.OVER, [], attempt()) == Stop()


@pytest.mark.parametrize(
    ("severity", "status", "passes"),
    [
        (Severity.ERROR, "passed", True),
        (Severity.ERROR, "failed", False),
        (Severity.ERROR, "error", False),
        (Severity.WARN, "warned", True),
        (Severity.WARN, "error", True),
    ],
)
def test_only_tests_of_error_severity_keep_a_branch_off_main(severity: Severity, status: str, passes: bool) -> None:
    result = QualityResult(name="one", status=status, severity=severity, value=2)

    assert (after_tests([result]) == Work()) is passes


def test_a_merge_is_followed_by_what_its_answer_says() -> None:
    conflict = after_merge(MergeOutcome.CONFLICT, attempt(conflicts=1), outages=0)
    last = after_merge(MergeOutcome.CONFLICT, attempt(conflicts=MAX_CONFLICTS), outages=0)

    assert after_merge(MergeOutcome.MERGED, attempt(), outages=0) == Succeed()
    assert after_merge(MergeOutcome.CLOSED, attempt(), outages=0) == Stop()
    assert after_merge(MergeOutcome.UNKNOWN, attempt(), outages=3) == ClaimAgain(ClaimReason.UNAVAILABLE, 8)
    assert isinstance(conflict, ClaimAgain)
    assert conflict.reason is ClaimReason.CONFLICT
    assert isinstance(last, Fail)
    assert last.kind is ErrorKind.CONFLICT


def test_transient_errors_are_retried_as_often_as_the_author_allows_with_doubling_pauses() -> None:
    patience = Patience(max_retries=2, retry_delay_seconds=5)

    first = after_failure(FailureKind.TRANSIENT, "slow down", attempt(retries=0), patience)
    second = after_failure(FailureKind.TRANSIENT, "slow down", attempt(retries=1), patience)
    third = after_failure(FailureKind.TRANSIENT, "slow down", attempt(retries=2), patience)

    assert (first, second) == (ClaimAgain(ClaimReason.RETRY, 5), ClaimAgain(ClaimReason.RETRY, 10))
    assert third == Fail(RunStatus.FAILED, ErrorKind.UNAVAILABLE, "tried 3 times: slow down")


def test_servers_that_cannot_be_reached_are_waited_for_without_end_here() -> None:
    patience = Patience()
    pauses = []
    for _ in range(8):
        step = after_failure(FailureKind.UNAVAILABLE, "", attempt(retries=99), patience)
        assert isinstance(step, ClaimAgain)
        assert step.reason is ClaimReason.UNAVAILABLE
        pauses.append(step.pause_seconds)
        patience = patience_after(patience, FailureKind.UNAVAILABLE)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert patience_after(patience, FailureKind.TRANSIENT).outages == 0
    assert outage_pause(10_000) == 60


def test_processes_that_are_lost_in_a_row_end_the_run() -> None:
    patience = Patience()
    for _ in range(MAX_LOST_PROCESSES - 1):
        assert isinstance(after_failure(FailureKind.LOST_PROCESS, "killed", attempt(), patience), ClaimAgain)
        patience = patience_after(patience, FailureKind.LOST_PROCESS)

    last = after_failure(FailureKind.LOST_PROCESS, "killed by SIGSEGV", attempt(), patience)

    assert isinstance(last, Fail)
    assert "killed by SIGSEGV" in last.error
    assert patience_after(patience, None) == Patience()


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind.name in ErrorKind.__members__])
def test_what_another_try_would_only_repeat_fails_with_its_own_kind(kind: FailureKind) -> None:
    if kind is FailureKind.UNAVAILABLE:
        return
    step = after_failure(kind, "why", attempt(), Patience(max_retries=9))

    assert isinstance(step, Fail)
    assert step.kind == ErrorKind(kind.value)
    assert (step.status is RunStatus.CANCELLED) == (kind is FailureKind.CANCELLED)


def test_a_branch_that_somebody_closed_stops_its_attempt_without_a_word() -> None:
    assert after_failure(FailureKind.CLOSED, "closed", attempt(), Patience()) == Stop()


def test_a_process_may_have_a_gigabyte_beyond_what_duckdb_may_hold() -> None:
    allowance = Allowance(memory_limit_bytes=100_000_000, phase="write")

    exceeded = allowance.exceeded_by(1_250_000_000)

    assert allowance.exceeded_by(1_100_000_000) is None
    assert exceeded is not None
    assert (exceeded.kind, exceeded.message) == (
        FailureKind.MEMORY,
        "memory_limit of 100 MB was used up in phase write: the process had 1.25 GB,"
        " and may have 1 GB beyond what DuckDB may hold",
    )


@pytest.mark.parametrize(
    ("size", "said"),
    [(1, "1 bytes"), (64_000, "64 kB"), (100_000_000, "100 MB"), (1_500_000_000, "1.5 GB"), (2 * 10**12, "2 TB")],
)
def test_bytes_are_said_as_authors_write_them(size: int, said: str) -> None:
    assert bytes_as_said(size) == said
