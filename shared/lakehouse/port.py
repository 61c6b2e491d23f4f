"""What any lakehouse can do: branches of all tables at once, merged atomically, with a log of every merge.

A view is on branches, merged and in the log as a table is, under the same names: one becomes the other by a merge.
A reference is the name of a branch (`main` is one) or a snapshot. A snapshot is an entry of the log of merges, an
opaque string; it names the state of all tables on main right after that merge. Everything raises `Unavailable`
when a server cannot be reached, and `NotFound` for a reference that does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from contracts.names import Qualified
from shared.errors import Conflict, NotFound

MAIN = "main"
"""The branch that everybody reads; it changes by merges only."""

BEGINNING = "0"
"""The snapshot before everything that was ever merged."""


class BranchClosed(Conflict):
    """The branch was closed or merged: nothing is committed to it, and it is not merged."""


class MergeConflict(Conflict):
    """Since the branch was made, main has moved under a table that the branch changed; nothing was merged."""

    def __init__(self, branch: str, tables: tuple[Qualified, ...]) -> None:
        self.tables = tables
        names = [str(table) for table in tables]
        super().__init__(
            f"main has moved under {', '.join(names)} since {branch!r} was made", details={"tables": names}
        )


class RelationKind(StrEnum):
    """What a name stands for."""

    TABLE = "table"
    VIEW = "view"


@dataclass(frozen=True)
class Relation:
    """A table or a view."""

    kind: RelationKind
    location: str
    """Of its metadata, as Iceberg lays it out for the one and for the other."""


@dataclass(frozen=True)
class MetadataFile:
    """A metadata file of a table, and what it says is current."""

    location: str
    snapshot_id: int | None
    """None for a table that never had any rows."""
    schema_id: int
    spec_id: int
    sort_order_id: int


@dataclass(frozen=True)
class ViewFile:
    """A metadata file of a view, and what it says is current."""

    location: str
    version_id: int
    schema_id: int


def kind_of(file: MetadataFile | ViewFile | None) -> RelationKind:
    """What a name stands for that points to such a file."""
    return RelationKind.VIEW if isinstance(file, ViewFile) else RelationKind.TABLE


@dataclass(frozen=True)
class Branch:
    """A branch other than main."""

    name: str
    closed_at: datetime | None


@dataclass(frozen=True)
class Merged:
    """An entry of the log of merges."""

    snapshot: str
    at: datetime
    run_id: UUID | None
    """None for maintenance and for tables that were dropped by hand."""
    attempt: int | None
    tables: Mapping[Qualified, str | None]
    """Each table or view that it changed, with the location of its metadata; None where it was dropped."""


@dataclass(frozen=True)
class TableChange:
    """An entry of the log of merges, as one table or view sees it."""

    snapshot: str
    at: datetime
    run_id: UUID | None
    attempt: int | None
    location: str | None
    """Of the metadata; None where it was dropped."""


class Lakehouse(Protocol):
    """The lakehouse from outside a run: branches, merges and their log, and where tables are.

    What goes into a table is written beside it, file by file, and is part of it with the `commit` that names it.
    """

    merges_settle_within: timedelta
    """How long after a branch was closed a merge of it that was under way may still come to be on main.

    Whoever closes a branch without having seen the answer to its merge looks on main no sooner than that.
    """

    async def head(self) -> str:
        """Name main's newest snapshot: as good a place as any to say since when something is looked for."""

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Make sure that tables can be created in `namespace.layer`, on every branch that is made from now on."""

    async def namespaces(self) -> set[str]:
        """List the namespaces of tables on main, with dots between their levels: `ns` and `ns.layer`."""

    async def create_branch(self, name: str) -> str:
        """Make a branch from main and give the snapshot that it starts from.

        `AlreadyExists` when there is such a branch, `BranchClosed` when it is closed, `Invalid` for a name made
        of hexadecimal digits only, which would look like a snapshot.
        """

    async def close_branch(self, name: str) -> None:
        """See to it that a branch of this name is not committed to or merged any more; it stays readable.

        A name without a branch is closed too: whoever comes late cannot make the branch, until the closed name
        is deleted or swept. A merge that was under way has either happened `merges_settle_within` later, or never will.
        """

    async def delete_branch(self, name: str) -> None:
        """Forget a branch, whatever its state; missing is fine. The name can be used again."""

    async def branches(self, prefix: str = "") -> list[Branch]:
        """List the branches whose names start so, by name, without main."""

    async def is_closed(self, name: str) -> bool:
        """Whether a branch was closed or merged."""

    async def sweep_branches(self, closed_for: timedelta) -> list[str]:
        """Delete the branches that were closed longer ago than this, and say which."""

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move a table or view on a branch from one metadata file to the next, which is in the store already.

        `expected` is the location of the one that the next was made from, or takes the place of; None stands for one
        that does not exist. `Conflict` when it is not there, `BranchClosed` when the branch is closed, `Forbidden` on
        main. `Unavailable` leaves open whether it was moved.
        """

    async def drop_table(self, branch: str, table: Qualified) -> None:
        """Take a table or a view off a branch, and with the merge off main; its files stay.

        `NotFound` where it is not.
        """
        found = await self.relation(table, branch)
        if found is None:
            raise NotFound(f"no table {str(table)!r} on {branch!r}")
        await self.commit(branch, table, found.location, None)

    async def merge(
        self, branch: str, run_id: UUID | None, attempt: int | None, since: str = BEGINNING
    ) -> Merged | None:
        """Put all tables that a branch changed on main at once, or none, and close the branch.

        None when the branch changed nothing; it is not closed then. A `run_id` that was merged before, from
        whatever branch and after the snapshot `since`, is answered with that merge; that no two branches of a run
        are merged at once is for the caller to see to, by closing the others. `MergeConflict` when main has moved
        under one of the tables, a first creation or a drop included; `BranchClosed` when the branch is closed.
        `Unavailable` leaves open whether it was merged: close the branch, then look with `find_merge`.
        """

    async def find_merge(self, run_id: UUID, since: str) -> Merged | None:
        """Look for the merge of a run in the log after a snapshot."""

    async def history(self, table: Qualified, limit: int, before: str | None = None) -> list[TableChange]:
        """List the changes of a table or view on main, newest first, from before a snapshot if one is given."""

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Say which tables and views there are at a reference, by name."""

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for at a reference; None where it stands for nothing."""

    async def tables(self, at: str = MAIN) -> dict[Qualified, str]:
        """Say which tables there are at a reference, without views, and where the metadata of each is."""
        relations = await self.relations(at)
        return {name: found.location for name, found in relations.items() if found.kind is RelationKind.TABLE}

    async def location(self, table: Qualified, at: str = MAIN) -> str | None:
        """Say where a table's metadata is at a reference; None where there is no such table, or a view is."""
        found = await self.relation(table, at)
        return found.location if found is not None and found.kind is RelationKind.TABLE else None

    async def live_metadata(self) -> set[Relation]:
        """List all tables and views that are on main now, or on any branch, open or closed."""

    async def past_metadata(self, since: datetime | None) -> set[Relation]:
        """List all tables and views of all entries of the log, back to a time if one is given."""
