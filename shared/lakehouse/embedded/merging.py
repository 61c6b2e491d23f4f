"""A branch becomes part of main, all of it or nothing, in one transaction."""

from uuid import UUID

import asyncpg

from contracts.names import Qualified
from shared.database import Connection
from shared.lakehouse.port import MergeConflict, Merged, Relation, RelationKind
from shared.lakehouse.refusals import branch_closed, no_branch


async def merge_branch(
    connection: Connection, branch: str, run_id: UUID | None, attempt: int | None, *, since: int
) -> Merged | None:
    """Put all tables that a branch changed on main at once, or none, and close the branch."""
    await connection.execute("select from branches where name = 'main' for update")
    if run_id is not None and (earlier := await merge_of(connection, run_id, since=since)):
        return earlier
    base_seq = await _lock_open_branch(connection, branch)
    changed, moved = await _changes(connection, branch, base_seq)
    if moved:
        raise MergeConflict(branch, moved)
    if not changed:
        return None
    return await _move_main(connection, branch, changed, run_id, attempt)


async def merge_of(connection: Connection, run_id: UUID, *, since: int) -> Merged | None:
    """Look for the merge of a run in the log after an entry."""
    records = await connection.fetch(
        """
        select merges.seq, merges.at, merges.attempt, pointers.table_name, pointers.location
        from merges
        join pointers on pointers.branch = 'main' and pointers.seq = merges.seq
        where merges.run_id = $1 and merges.seq > $2
        order by pointers.table_name
        """,
        run_id,
        since,
    )
    if not records:
        return None
    first = records[0]
    tables = {Qualified.parse(record["table_name"]): record["location"] for record in records}
    return Merged(str(first["seq"]), first["at"], run_id, first["attempt"], tables)


def relation_of(record: asyncpg.Record) -> Relation:
    """The table or view that a pointer is to, which has a location."""
    return Relation(RelationKind(record["kind"]), record["location"])


async def _lock_open_branch(connection: Connection, name: str) -> int:
    branch = await connection.fetchrow("select base_seq, closed_at from branches where name = $1 for update", name)
    if branch is None:
        raise no_branch(name)
    if branch["closed_at"] is not None:
        raise branch_closed(name)
    base_seq: int = branch["base_seq"]
    return base_seq


async def _changes(
    connection: Connection, branch: str, base_seq: int
) -> tuple[dict[Qualified, Relation | None], tuple[Qualified, ...]]:
    """Say what a branch changed, and which of that has changed on main meanwhile."""
    records = await connection.fetch(
        """
        select
          table_name,
          location,
          kind,
          exists (
            select from pointers as main
            where main.branch = 'main' and main.table_name = own.table_name and main.seq > $2
          ) as has_moved
        from pointers as own
        where branch = $1
          -- A table that was made and dropped on the branch is no change.
          and (
            location is not null
            or exists (
              select from pointers as main
              where main.branch = 'main' and main.table_name = own.table_name and main.seq <= $2
            )
          )
        order by table_name
        """,
        branch,
        base_seq,
    )
    changed = {
        Qualified.parse(record["table_name"]): relation_of(record) if record["location"] is not None else None
        for record in records
    }
    moved = tuple(Qualified.parse(record["table_name"]) for record in records if record["has_moved"])
    return changed, moved


async def _move_main(
    connection: Connection,
    branch: str,
    changed: dict[Qualified, Relation | None],
    run_id: UUID | None,
    attempt: int | None,
) -> Merged:
    locations = {name: found.location if found is not None else None for name, found in changed.items()}
    entry = await connection.fetchrow(
        """
        with head as (
          update branches set base_seq = base_seq + 1 where name = 'main' returning base_seq
        ),
        closed as (
          update branches set closed_at = now() where name = $3
        ),
        moved as (
          insert into pointers (branch, table_name, seq, location, kind)
          select 'main', table_name, base_seq, location, kind
          from head
          cross join unnest($4::text[], $5::text[], $6::text[]) as changed (table_name, location, kind)
        )
        insert into merges (seq, run_id, attempt, at)
        select base_seq, $1, $2, clock_timestamp() from head
        returning seq, at
        """,
        run_id,
        attempt,
        branch,
        [str(name) for name in changed],
        list(locations.values()),
        [found.kind if found is not None else RelationKind.TABLE for found in changed.values()],
    )
    assert entry is not None
    return Merged(str(entry["seq"]), entry["at"], run_id, attempt, locations)
