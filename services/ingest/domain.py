"""Which files a run reads, what its end and a changed bucket do to them, and what a name in a zone stands for.

Everything here is decided on plain values (`system.md`, Files of a run; `triggers.md`, Landing zones).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from contracts.landing import FileState, ZoneForm
from contracts.runs import RunStatus

PAGE_FILES: Final = 500
PAGE_BYTES: Final = 160 * 1024
"""What the files of one page take at the most, as no message is larger than 256 KiB."""
_BYTES_BESIDE_NAMES: Final = 220


class ReadState(StrEnum):
    """What a run's hold on a file has become."""

    CLAIMED = "claimed"
    READ = "read"
    RELEASED = "released"


# Files of a run


@dataclass(frozen=True)
class ZoneFile:
    """One version of a file, by the key that DuckDB reads it under."""

    file_id: UUID
    key: str
    version_id: str


@dataclass(frozen=True)
class Claim:
    """A file that a run holds, and the form in which it asked."""

    form: ZoneForm
    file: ZoneFile


@dataclass(frozen=True)
class RunRecord:
    """What is known about a run when one of its attempts asks."""

    is_settled: bool = False
    newest_attempt: int = 0
    """The newest attempt that ever asked."""
    changed_attempt: int | None = None
    """The last attempt that was told that its files changed."""

    def is_over_for(self, attempt: int) -> bool:
        """Whether an attempt that asks is to stop: the run has ended, or a newer attempt has asked."""
        return self.is_settled or attempt < self.newest_attempt


@dataclass(frozen=True)
class Ready:
    """These are the files; `is_new` if the answer is to be kept."""

    files: tuple[ZoneFile, ...]
    is_new: bool


@dataclass(frozen=True)
class NotYet:
    """An earlier run of the pipeline is unsettled: ask again."""


@dataclass(frozen=True)
class Over:
    """Stop."""


def answer_claim(
    run: RunRecord,
    attempt: int,
    form: ZoneForm,
    *,
    kept: tuple[ZoneFile, ...] | None,
    zone_files: Sequence[ZoneFile],
    read_ids: Collection[UUID],
    is_earlier_unsettled: bool,
) -> Ready | NotYet | Over:
    """Say which files of a zone a run reads, when one of its attempts asks for them in a form.

    `kept` is the answer that the run got before, which may be empty: it stands for all attempts. Otherwise the zone
    decides: `zone_files` in the order in which they are read, `read_ids` those that good runs of the pipeline have
    read. Any other run of the pipeline that got an answer and is not settled counts as earlier.
    """
    if run.is_over_for(attempt):
        return Over()
    if kept is not None:
        return Ready(kept, is_new=False)
    match form:
        case ZoneForm.ALL:
            return Ready(tuple(zone_files), is_new=True)
        case ZoneForm.NEW:
            if is_earlier_unsettled:
                return NotYet()
            return Ready(tuple(file for file in zone_files if file.file_id not in read_ids), is_new=True)


def settle(claims: Iterable[Claim], status: RunStatus, *, dry_run: bool) -> dict[Claim, ReadState]:
    """Say what becomes of a run's claims when it ends: read by a success that was no dry run, else released."""
    return dict.fromkeys(claims, settled_state(status, dry_run=dry_run))


def settled_state(status: RunStatus, *, dry_run: bool) -> ReadState:
    """What every claim of a run becomes when it ends."""
    return ReadState.READ if status is RunStatus.SUCCESS and not dry_run else ReadState.RELEASED


@dataclass(frozen=True)
class Move:
    """A claim becomes what the zone now holds under its name: a newer version, or nothing."""

    claim: Claim
    to: ZoneFile | None


@dataclass(frozen=True)
class Unchanged:
    """What was read is what is claimed."""


@dataclass(frozen=True)
class Changed:
    """The attempt read something else than what is claimed now; `moves` are those found at this time."""

    moves: tuple[Move, ...]


def recheck(
    run: RunRecord,
    attempt: int,
    claims: Iterable[Claim],
    current: Mapping[str, ZoneFile | None],
    *,
    read_ids: Collection[UUID] = (),
) -> Unchanged | Changed | Over:
    """Compare what a run claimed with what the store held after it had written.

    `current` says, for each claimed key, what lies there that the zone gives out. An attempt that was told of a change
    has read the older version whatever lies there now, so it is told again. An older attempt than the newest
    must not move claims: the newest may have read and checked them already.
    """
    if run.is_over_for(attempt):
        return Over()
    if run.changed_attempt == attempt:
        return Changed(())
    moves = tuple(
        Move(claim, _replacement(claim, current[claim.file.key], read_ids))
        for claim in claims
        if current[claim.file.key] != claim.file
    )
    return Changed(moves) if moves else Unchanged()


def _replacement(claim: Claim, found: ZoneFile | None, read_ids: Collection[UUID]) -> ZoneFile | None:
    if found is not None and claim.form is ZoneForm.NEW and found.file_id in read_ids:
        return None
    return found


def fitting(names: Sequence[tuple[str, str]]) -> int:
    """How many files fit on a page, given filename and key of those that come next; at least one."""
    total = 0
    for count, parts in enumerate(names[:PAGE_FILES]):
        total += _BYTES_BESIDE_NAMES + sum(len(part.encode()) for part in parts)
        if total > PAGE_BYTES and count:
            return count
    return min(len(names), PAGE_FILES)


def pause_after(tries: int) -> timedelta:
    """How long the store is left alone with what it has refused so often: a minute, doubling, a day at the most."""
    return min(timedelta(minutes=1 << min(tries - 1, 20)), timedelta(days=1))


# What a name in a zone stands for


@dataclass(frozen=True)
class Place:
    """Where in which zone a key lies."""

    namespace: str
    zone: str
    filename: str

    @property
    def key(self) -> str:
        """The key in the bucket."""
        return f"{self.namespace}/landing/{self.zone}/{self.filename}"


@dataclass(frozen=True)
class Seen:
    """A version of a file that somebody told of, or that was found in the bucket."""

    file_id: UUID
    place: Place
    version_id: str
    etag: str
    size_bytes: int
    at: datetime
    problem: str | None = None
    """Why its name cannot be read."""
    content_type: str | None = None
    uploaded_by: str | None = None

    @property
    def state(self) -> FileState:
        """What it becomes when it is the current version of its name."""
        return FileState.REJECTED if self.problem else FileState.LANDED


@dataclass(frozen=True)
class Known:
    """A version of a name that is on record."""

    file_id: UUID
    state: FileState
    is_current: bool
    is_withdrawn: bool = False
    """Taken out of the zone for good: deleted through the API, or archived."""
    was_read: bool = False


@dataclass(frozen=True)
class Arrival:
    """A version that goes on record."""

    seen: Seen
    state: FileState
    is_current: bool

    @property
    def is_announced(self) -> bool:
        """Whether `file.landed` is said of it: of every version that could be read, also if a newer one came first."""
        return self.seen.problem is None and self.state is not FileState.REMOVED


@dataclass(frozen=True)
class NameChanges:
    """What the record of one name has to become so that it says what the bucket holds."""

    retired: tuple[UUID, FileState] | None = None
    """The version that is current no more, and its state."""
    restored: tuple[UUID, FileState] | None = None
    """A version on record that is current again, and its state."""
    arrivals: tuple[Arrival, ...] = ()


Held: TypeAlias = Seen | None
"""The current version of a name in the store; nothing where there is none."""


def name_changes(known: Collection[Known], told: Collection[Seen], held: Held) -> NameChanges:
    """Decide by what the store holds under a name, whatever the order in which its versions were told of.

    `known` has the version that is current on record, if any, and those among `told` and `held` that are on record.
    """
    records = {record.file_id: record for record in known}
    arrivals = {seen.file_id: seen for seen in (*told, *((held,) if held else ())) if seen.file_id not in records}
    return NameChanges(
        retired=_retired(known, held),
        restored=_restored(records.get(held.file_id), held) if held else None,
        arrivals=tuple(_arrival(seen, held) for seen in arrivals.values()),
    )


def _retired(known: Collection[Known], held: Held) -> tuple[UUID, FileState] | None:
    for record in known:
        if record.is_current and (held is None or record.file_id != held.file_id):
            return record.file_id, _state_when_retired(record.state, held)
    return None


def _state_when_retired(state: FileState, held: Held) -> FileState:
    if held is None:
        return FileState.REMOVED
    return FileState.PROCESSED if state is FileState.PROCESSED else FileState.SUPERSEDED


def _restored(record: Known | None, held: Seen) -> tuple[UUID, FileState] | None:
    if record is None or record.is_current or record.is_withdrawn:
        return None
    return record.file_id, FileState.PROCESSED if record.was_read else held.state


def _arrival(seen: Seen, held: Held) -> Arrival:
    if held is None:
        return Arrival(seen, FileState.REMOVED, is_current=False)
    if seen.file_id != held.file_id:
        return Arrival(seen, FileState.SUPERSEDED, is_current=False)
    return Arrival(seen, seen.state, is_current=True)
