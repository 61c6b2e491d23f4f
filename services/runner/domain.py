"""The rules of the run protocol that a runner keeps (`system.md`, One run, start to end).

Pure, and explored exhaustively by `tests/unit/test_run_model.py`. A runner holds one `run.queued` and goes in circles:
it claims an attempt (`after_claim`), makes the attempt's branch, asks catalog (`after_check`), closes what came before
(`older_branches`), looks on main (`end_of`), works, and ends each attempt by one of the `Next` steps.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from contracts.reports import QualityResult, Severity
from contracts.runs import (
    Attempt,
    AttemptState,
    ClaimReason,
    EndRun,
    ErrorKind,
    Over,
    RunStatus,
    Superseded,
)

MAX_CONFLICTS: Final = 5
"""Attempts after which a table that others keep writing to fails the run."""
MAX_FILE_CHANGES: Final = 10
"""Attempts after which files that keep changing under a run fail it."""
MAX_LOST_PROCESSES: Final = 5
"""So many processes lost in a row end a run: what it does may be what kills them."""


# Branches


RUN_BRANCHES: Final = "run-"
"""What the names of all branches of runs start with."""


UPKEEP_BRANCHES: Final = "upkeep-"
"""What the names of all branches start with that maintenance makes, each for a moment."""

SHORT_RUNS: Final = 3
"""So many different runs of a table seen under way within a while mean that each of them is short."""


def may_interrupt(seen: Collection[UUID], under_way: UUID | None) -> bool:
    """Whether maintenance may change a table now, after these runs of it were seen under way.

    A run that is under way then would find that main has moved, and run again: that costs little if runs are short.
    """
    return under_way is None or len(seen) >= SHORT_RUNS


def branch_name(run_id: UUID, attempt: int) -> str:
    """The branch of an attempt; made once, and never again."""
    return f"{branch_prefix(run_id)}{attempt}"


def branch_prefix(run_id: UUID) -> str:
    """What the names of all branches of a run start with."""
    return f"{RUN_BRANCHES}{run_id}-"


def attempt_of_branch(branch: str) -> tuple[UUID, int] | None:
    """Whose branch this is: the run and the number of its attempt; None for one that no attempt has made."""
    run, _, number = branch.removeprefix(RUN_BRANCHES).rpartition("-")
    try:
        return (UUID(run), int(number)) if branch.startswith(RUN_BRANCHES) else None
    except ValueError:
        return None


def follows_others(attempt: int) -> bool:
    """Whether it closes the branches of earlier attempts of its run, and looks for one of them on main.

    Numbers are given once, and in order: before the first attempt there was none, with a branch or on main.
    """
    return attempt > 1


def older_branches(branches: Iterable[str], run_id: UUID, attempt: int) -> list[str]:
    """Those of the run's branches that an attempt closes before it writes: older ones, never newer ones."""
    return [name for name in branches if 0 < _attempt_of(name, run_id) < attempt]


def branches_to_end(branches: Iterable[str], run_id: UUID, attempt: int) -> list[str]:
    """Those of the run's branches that are closed before a failure is said under this attempt: its own and older ones.

    Its own is among them even if it was never made: closed, it cannot be made any more.
    """
    own = [branch_name(run_id, attempt)] if attempt > 0 else []
    return older_branches(branches, run_id, attempt) + own


def until_settled(
    closings: Mapping[str, datetime], run_id: UUID, attempt: int, *, answered: Collection[int], within: timedelta
) -> datetime | None:
    """When main shows for certain whether any attempt up to this one has merged; None if it does so by now.

    `closings` are the run's closed branches, and when each was closed. A merge that was sent before the closing may be
    applied `within` that time after it, unless it was `answered`, or never sent, as is known of these attempts.
    """
    unseen = [
        closed_at
        for name, closed_at in closings.items()
        if 0 < _attempt_of(name, run_id) <= attempt and _attempt_of(name, run_id) not in answered
    ]
    return max(unseen) + within if unseen else None


def _attempt_of(branch: str, run_id: UUID) -> int:
    number = branch.removeprefix(branch_prefix(run_id))
    return int(number) if number != branch and number.isdecimal() else 0


# What a runner does next


@dataclass(frozen=True)
class Work:
    """Begin, or go on with, the attempt."""


@dataclass(frozen=True)
class OrderedEnd:
    """Close all branches of the run, look on main, say how the run ended, acknowledge."""

    order: EndRun


@dataclass(frozen=True)
class Forget:
    """The run has ended: acknowledge its message and say nothing."""


@dataclass(frozen=True)
class Stop:
    """Another attempt is the newest: no word, no acknowledgement, no renewal, no claim."""


@dataclass(frozen=True)
class ClaimAgain:
    """Ask catalog for an attempt that follows this one, after a pause."""

    reason: ClaimReason
    pause_seconds: float = 0


@dataclass(frozen=True)
class Succeed:
    """Say success under this attempt: merged, or nothing to merge."""


@dataclass(frozen=True)
class Fail:
    """Close this attempt's branch and older ones, look on main, and say this if the run is not there."""

    status: RunStatus
    kind: ErrorKind
    error: str


# Claiming


def after_claim(answer: Attempt | EndRun | Over | Superseded) -> Work | OrderedEnd | Forget | Stop:
    """What catalog's answer to a claim means."""
    match answer:
        case Attempt():
            return Work()
        case EndRun():
            return OrderedEnd(answer)
        case Over():
            return Forget()
        case Superseded():
            return Stop()
        case _:
            assert_never(answer)


def after_check(state: AttemptState) -> Work | Stop | ClaimAgain:
    """What catalog's word on an attempt means, once its branch is made and before anything is written on it.

    A run that is not wanted any more is claimed again: catalog then says how it is to end, and nothing is guessed
    here. The claim is no retry, but must follow an attempt, as a zombie's has to be refused.
    """
    if not state.is_newest:
        return Stop()
    if not state.is_wanted:
        return ClaimAgain(ClaimReason.RETRY)
    return Work()


def end_of(status: RunStatus, attempt: int, merged_attempt: int | None) -> tuple[RunStatus, int]:
    """How a run ends, and under which attempt it is said, when its branches are closed and main was looked at."""
    if merged_attempt is not None:
        return RunStatus.SUCCESS, merged_attempt
    return status, attempt


# Files and tests


class FilesState(StrEnum):
    """What ingest says of the files that a run has read."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    OVER = "over"


def after_files(state: FilesState, changes: Collection[str], attempt: Attempt) -> Work | ClaimAgain | Fail | Stop:
    """What becomes of an attempt whose files were looked at again after it had read them.

    Over is the run, or this attempt only, as a newer one has asked: its message must not be acknowledged.
    """
    match state:
        case FilesState.UNCHANGED:
            return Work()
        case FilesState.OVER:
            return Stop()
        case FilesState.CHANGED if attempt.file_changes >= MAX_FILE_CHANGES:
            names = ", ".join(sorted(changes)[:5])
            message = f"files changed while the run read them, {MAX_FILE_CHANGES + 1} times in a row: {names}"
            return Fail(RunStatus.FAILED, ErrorKind.CONFLICT, message)
        case FilesState.CHANGED:
            return ClaimAgain(ClaimReason.FILES_CHANGED, _growing(attempt.file_changes, first=0.1, longest=5))
        case _:
            assert_never(state)


def after_tests(results: Collection[QualityResult]) -> Work | Fail:
    """The gate: a test of error severity that fails, or that cannot run, keeps the branch off main."""
    blocking = [
        result for result in results if result.severity is Severity.ERROR and result.status in ("failed", "error")
    ]
    if not blocking:
        return Work()
    return Fail(RunStatus.FAILED, ErrorKind.QUALITY, "; ".join(_verdict(result) for result in blocking))


def _verdict(result: QualityResult) -> str:
    if result.status == "error":
        return f"test {result.name} could not run: {result.message}"
    rows = "1 row" if result.value == 1 else f"{result.value} rows"
    what = f" ({result.description})" if result.description else ""
    return f"test {result.name} found {rows}{what}"


# Phases


def phase_after(name: str) -> str:
    """The phase that follows one that is done."""
    following = {"branch": "compile", "compile": "write", "write": "quality", "quality": "merge"}
    return following[name]


def bytes_as_said(size: int) -> str:
    """A number of bytes as authors write it in `memory_limit`."""
    for unit, name in ((10**12, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


# Merging


class MergeOutcome(StrEnum):
    """What came of the request to merge."""

    MERGED = "merged"
    CONFLICT = "conflict"
    CLOSED = "closed"
    UNKNOWN = "unknown"


def after_merge(outcome: MergeOutcome, attempt: Attempt, outages: int) -> Succeed | ClaimAgain | Fail | Stop:
    """What becomes of an attempt whose merge was asked for.

    A merge without an answer may have happened: the next attempt closes this one's branch and looks. A branch that
    somebody closed means that a newer attempt, or the run's end, is under way.
    """
    match outcome:
        case MergeOutcome.MERGED:
            return Succeed()
        case MergeOutcome.CONFLICT if attempt.conflicts >= MAX_CONFLICTS:
            message = f"main moved under the table that the run wrote, {MAX_CONFLICTS + 1} times in a row"
            return Fail(RunStatus.FAILED, ErrorKind.CONFLICT, message)
        case MergeOutcome.CONFLICT:
            return ClaimAgain(ClaimReason.CONFLICT, _growing(attempt.conflicts, first=0.1, longest=5))
        case MergeOutcome.CLOSED:
            return Stop()
        case MergeOutcome.UNKNOWN:
            return ClaimAgain(ClaimReason.UNAVAILABLE, outage_pause(outages))
        case _:
            assert_never(outcome)


# Failing


class FailureKind(StrEnum):
    """Why the work on an attempt stopped."""

    UNAVAILABLE = "unavailable"
    """A server cannot be reached."""
    LOST_PROCESS = "lost_process"
    """The process of the attempt is gone, nobody knows why."""
    TRANSIENT = "transient"
    """A server that was reached refused for now."""
    CLOSED = "closed"
    """The branch was closed by somebody else."""
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    COMPILE = "compile"
    SQL = "sql"
    PYTHON = "python"
    SCHEMA = "schema"
    QUALITY = "quality"
    """A hook refused what would be merged."""
    CONFLICT = "conflict"
    INTERNAL = "internal"


_FINAL: Final = {
    FailureKind.CANCELLED: (RunStatus.CANCELLED, ErrorKind.CANCELLED),
    FailureKind.TIMEOUT: (RunStatus.FAILED, ErrorKind.TIMEOUT),
    FailureKind.MEMORY: (RunStatus.FAILED, ErrorKind.MEMORY),
    FailureKind.COMPILE: (RunStatus.FAILED, ErrorKind.COMPILE),
    FailureKind.SQL: (RunStatus.FAILED, ErrorKind.SQL),
    FailureKind.PYTHON: (RunStatus.FAILED, ErrorKind.PYTHON),
    FailureKind.SCHEMA: (RunStatus.FAILED, ErrorKind.SCHEMA),
    FailureKind.QUALITY: (RunStatus.FAILED, ErrorKind.QUALITY),
    FailureKind.CONFLICT: (RunStatus.FAILED, ErrorKind.CONFLICT),
    FailureKind.INTERNAL: (RunStatus.FAILED, ErrorKind.INTERNAL),
}
"""Failures that another try would only repeat."""


def error_kind(kind: FailureKind) -> ErrorKind:
    """The kind of error that a failure is told as, where nothing is tried again."""
    return _FINAL[kind][1] if kind in _FINAL else ErrorKind.UNAVAILABLE


@dataclass(frozen=True)
class Patience:
    """How much more a run is tried: what its author allows, and what has happened in this delivery."""

    max_retries: int = 2
    retry_delay_seconds: float = 5
    outages: int = 0
    """Attempts in a row that ended because a server could not be reached or their process was lost."""
    lost_processes: int = 0
    """Those of them whose process was lost."""


def after_failure(kind: FailureKind, error: str, attempt: Attempt, patience: Patience) -> ClaimAgain | Fail | Stop:
    """What becomes of an attempt whose work failed."""
    match kind:
        case FailureKind.CLOSED:
            return Stop()
        case FailureKind.UNAVAILABLE:
            return ClaimAgain(ClaimReason.UNAVAILABLE, outage_pause(patience.outages))
        case FailureKind.LOST_PROCESS if patience.lost_processes + 1 >= MAX_LOST_PROCESSES:
            message = f"{MAX_LOST_PROCESSES} processes in a row were lost while they worked on this run: {error}"
            return Fail(RunStatus.FAILED, ErrorKind.UNAVAILABLE, message)
        case FailureKind.LOST_PROCESS:
            return ClaimAgain(ClaimReason.UNAVAILABLE, outage_pause(patience.outages))
        case FailureKind.TRANSIENT if attempt.retries >= patience.max_retries:
            tries = "once" if attempt.retries == 0 else f"{attempt.retries + 1} times"
            return Fail(RunStatus.FAILED, ErrorKind.UNAVAILABLE, f"tried {tries}: {error}")
        case FailureKind.TRANSIENT:
            pause = _growing(attempt.retries, first=patience.retry_delay_seconds, longest=3600)
            return ClaimAgain(ClaimReason.RETRY, pause)
        case _:
            status, error_kind = _FINAL[kind]
            return Fail(status, error_kind, error)


def patience_after(patience: Patience, kind: FailureKind | None) -> Patience:
    """The patience that is left for the attempt after one that failed so, or ended without a failure."""
    if kind not in (FailureKind.LOST_PROCESS, FailureKind.UNAVAILABLE):
        return replace(patience, outages=0, lost_processes=0)
    is_lost = kind is FailureKind.LOST_PROCESS
    return replace(patience, outages=patience.outages + 1, lost_processes=patience.lost_processes + is_lost)


def outage_pause(outages: int) -> float:
    """Seconds to wait for a server after so many attempts in a row that could not reach it: 1, doubling, at most 60."""
    return _growing(outages, first=1, longest=60)


def _growing(times: int, *, first: float, longest: float) -> float:
    return float(min(first * 2 ** min(times, 20), longest))
