"""The rules of the run protocol that catalog keeps (`system.md`, One run, start to end).

Pure, and explored exhaustively by `tests/unit/test_run_model.py`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from contracts.runs import ClaimReason, ErrorKind, Overlap, RejectionReason, RunRequested, RunStatus

LOST_RUNNERS: Final = 5
"""So many runners lost in a row end a run: what it does may be what kills them."""

MANUAL: Final = "manual"


@dataclass(frozen=True)
class Limits:
    """How long catalog is patient."""

    outage: timedelta
    """With servers that cannot be reached, while attempts follow each other."""
    silence: timedelta
    """With a runner that has an attempt and says nothing."""
    unclaimed: timedelta
    """With a queued run that no runner takes."""


@dataclass(frozen=True)
class Ending:
    """How a run is to end, once its branches are closed and main shows nothing of it."""

    status: RunStatus
    error: str
    kind: ErrorKind


@dataclass(frozen=True)
class RunState:
    """What the decisions about a run depend on."""

    status: RunStatus = RunStatus.PENDING
    attempt: int = 0
    """The newest attempt; 0 before the first."""
    queue_number: int = 0
    """How often the run was said to be queued; 0 while it waits for its pipeline."""
    claimed_at: datetime | None = None
    heard_at: datetime | None = None
    """When the run was queued, claimed or progressed last."""
    cancel_requested: bool = False
    ending: Ending | None = None
    """Set once no attempt is given any more."""
    head: str | None = None
    lost_in_a_row: int = 0
    outage_since: datetime | None = None
    retries: int = 0
    conflicts: int = 0
    file_changes: int = 0


# Requests


@dataclass(frozen=True)
class PipelineState:
    """What the decision about a request depends on."""

    is_meant: bool
    """Whether it is the pipeline that the asker knew by this name."""
    is_published: bool
    has_open_run: bool


@dataclass(frozen=True)
class Rejection:
    """Why a request does not become a run."""

    reason: RejectionReason
    message: str


def rejection(request: RunRequested, pipeline: PipelineState | None) -> Rejection | None:
    """Why this request cannot become a run now; None if it can. `pipeline` is the one that lives under the name."""
    name = request.pipeline
    if pipeline is None and request.pipeline_id is None:
        return Rejection(RejectionReason.UNKNOWN_PIPELINE, f"there is no pipeline {name!r}")
    if pipeline is None or not pipeline.is_meant:
        return Rejection(RejectionReason.PIPELINE_REMOVED, f"the pipeline that was called {name!r} was removed")
    if not pipeline.is_published and request.trigger != MANUAL:
        return Rejection(
            RejectionReason.UNPUBLISHED, f"{name!r} was never published; only a manual run takes its draft"
        )
    if request.overlap is Overlap.SKIP and pipeline.has_open_run:
        return Rejection(RejectionReason.OVERLAP, f"a run of {name!r} is pending or running")
    return None


# Claims


@dataclass(frozen=True)
class Claim:
    """A runner's question for an attempt."""

    queue_number: int
    reason: ClaimReason
    follows: int | None
    head: str
    answered_with: int | None = None
    """The attempt that this very claim was given before, if its answer was lost on the way."""


@dataclass(frozen=True)
class GiveAttempt:
    """The runner may work: on the newest attempt of this state."""

    state: RunState
    is_new: bool


@dataclass(frozen=True)
class OrderEnd:
    """The runner is to close the run's branches, look on main, and say how it ended."""

    state: RunState
    ending: Ending


@dataclass(frozen=True)
class RefuseOver:
    """There is nothing left to do for this delivery."""


@dataclass(frozen=True)
class RefuseSuperseded:
    """Somebody else has a newer attempt."""


Verdict = GiveAttempt | OrderEnd | RefuseOver | RefuseSuperseded


def judge_claim(run: RunState, claim: Claim, now: datetime, limits: Limits) -> Verdict:
    """What a runner that asks for an attempt is told; the same claim is always told the same."""
    if run.status.is_terminal or claim.queue_number < run.queue_number:
        return RefuseOver()
    if claim.answered_with is not None and claim.answered_with != run.attempt:
        return RefuseSuperseded()
    if claim.reason is not ClaimReason.DELIVERY and claim.answered_with is None and claim.follows != run.attempt:
        return RefuseSuperseded()
    if claim.answered_with is not None and run.ending is None:
        return GiveAttempt(run, is_new=False)
    counted = _count(run, claim, now, limits)
    ending = run.ending or _reason_to_end(counted, now, limits)
    if ending is not None:
        return OrderEnd(replace(counted, ending=ending, heard_at=now), ending)
    return GiveAttempt(
        replace(
            counted,
            status=RunStatus.RUNNING,
            attempt=run.attempt + 1,
            claimed_at=now,
            heard_at=now,
            head=run.head if run.head is not None else claim.head,
        ),
        is_new=True,
    )


def _count(run: RunState, claim: Claim, now: datetime, limits: Limits) -> RunState:
    match claim.reason:
        case ClaimReason.DELIVERY:
            return replace(run, lost_in_a_row=run.lost_in_a_row + 1 if run.attempt else 0)
        case ClaimReason.UNAVAILABLE:
            # An attempt that worked for long before it met a lost server is not part of an earlier outage.
            is_same_outage = run.claimed_at is not None and now - run.claimed_at < limits.outage / 6
            since = run.outage_since if is_same_outage else None
            return replace(run, lost_in_a_row=0, outage_since=since or now)
        case ClaimReason.RETRY:
            return replace(run, lost_in_a_row=0, outage_since=None, retries=run.retries + 1)
        case ClaimReason.CONFLICT:
            return replace(run, lost_in_a_row=0, outage_since=None, conflicts=run.conflicts + 1)
        case ClaimReason.FILES_CHANGED:
            return replace(run, lost_in_a_row=0, outage_since=None, file_changes=run.file_changes + 1)


def _reason_to_end(run: RunState, now: datetime, limits: Limits) -> Ending | None:
    if run.cancel_requested:
        return Ending(RunStatus.CANCELLED, "cancelled on request", ErrorKind.CANCELLED)
    if run.lost_in_a_row >= LOST_RUNNERS:
        return Ending(
            RunStatus.FAILED,
            f"{LOST_RUNNERS} runners in a row were lost while they worked on this run",
            ErrorKind.UNAVAILABLE,
        )
    if run.outage_since is not None and now - run.outage_since >= limits.outage:
        return Ending(
            RunStatus.FAILED,
            f"a server could not be reached since {run.outage_since.isoformat(timespec='seconds')}",
            ErrorKind.UNAVAILABLE,
        )
    return None


def is_newest(run: RunState, attempt: int) -> bool:
    """Whether no later attempt was given."""
    return run.attempt == attempt


def is_wanted(run: RunState) -> bool:
    """Whether an attempt of the run may still write."""
    return not run.status.is_terminal and not run.cancel_requested and run.ending is None


# Ends


def counts(run: RunState, *, attempt: int, status: RunStatus, is_on_main: bool) -> bool:
    """Whether what an attempt says of its end is the end of the run.

    A terminal state never changes. What is on main counts from any attempt; all else only from the newest, as a
    later attempt may yet merge.
    """
    if run.status.is_terminal:
        return False
    if status is RunStatus.SUCCESS and is_on_main:
        return True
    return attempt == run.attempt


def can_be_cancelled_at_once(run: RunState) -> bool:
    """Whether no runner can have begun with it."""
    return run.attempt == 0


# Silence


def is_to_be_queued_again(run: RunState, now: datetime, limits: Limits) -> bool:
    """Whether the runner that has the run, or the message that offers it, must be taken for lost."""
    if run.status.is_terminal or run.queue_number == 0 or run.heard_at is None:
        return False
    patience = limits.silence if run.attempt else limits.unclaimed
    return now - run.heard_at >= patience


def queued(run: RunState, now: datetime) -> RunState:
    """The run once it is said to be queued, for the first time or again."""
    return replace(run, queue_number=run.queue_number + 1, heard_at=now)
