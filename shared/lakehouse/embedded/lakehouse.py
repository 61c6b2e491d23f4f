"""The port of the lakehouse, over PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from contracts.names import Qualified
from shared.database import database, transaction
from shared.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from shared.lakehouse.embedded.merging import merge_branch, merge_of, relation_of
from shared.lakehouse.port import (
    BEGINNING,
    MAIN,
    Branch,
    Lakehouse,
    Merged,
    MetadataFile,
    Relation,
    TableChange,
    ViewFile,
    kind_of,
)
from shared.lakehouse.refusals import (
    branch_closed,
    branch_exists,
    no_branch,
    refuse_commit_to_main,
    refuse_main,
    refuse_name_of_snapshot,
)
from shared.settings import Settings

SCHEMA = "lakehouse"
OWNER = "runner"
MIGRATIONS = Path(__file__).parent / "migrations"

_MAX_SEQ = 2**63 - 1


@asynccontextmanager
async def embedded_lakehouse(
    settings: Settings, role: str, migrations: Path | None
) -> AsyncIterator["EmbeddedLakehouse"]:
    """Log in to the lakehouse as a role; only its owner has migrations to apply."""
    async with database(settings, role, migrations, schema=SCHEMA) as pool:
        yield EmbeddedLakehouse(pool)


class EmbeddedLakehouse(Lakehouse):
    """Says what the rows say, in the words of the port."""

    merges_settle_within = timedelta(0)
    """A branch is closed under the lock that its merge holds."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._ensured: set[tuple[str, str]] = set()

    async def head(self) -> str:
        """Name main's newest snapshot; `"0"` while nothing was ever merged."""
        with _translated():
            return str(await self._pool.fetchval("select base_seq from branches where name = $1", MAIN))

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Make sure that tables can be created in `namespace.layer`, on every branch."""
        if (namespace, layer) in self._ensured:
            # None ever goes.
            return
        with _translated():
            await self._pool.execute(
                "insert into namespaces (name) select unnest($1::text[]) on conflict do nothing",
                [namespace, f"{namespace}.{layer}"],
            )
        self._ensured.add((namespace, layer))

    async def namespaces(self) -> set[str]:
        """List the Iceberg namespaces, with dots between their levels."""
        with _translated():
            return {record["name"] for record in await self._pool.fetch("select name from namespaces")}

    async def create_branch(self, name: str) -> str:
        """Make a branch from main and give the snapshot that it starts from."""
        refuse_name_of_snapshot(name)
        with _translated():
            base = await self._pool.fetchval(
                """
                insert into branches (name, base_seq)
                select $1, base_seq from branches where name = 'main'
                on conflict do nothing
                returning base_seq
                """,
                name,
            )
        if base is None:
            if name != MAIN and await self.is_closed(name):
                raise branch_closed(name)
            raise branch_exists(name)
        return str(base)

    async def close_branch(self, name: str) -> None:
        """See to it that a branch of this name is not committed to or merged any more; it stays readable."""
        refuse_main(name)
        with _translated():
            await self._pool.execute(
                """
                insert into branches (name, base_seq, closed_at)
                select $1, base_seq, now() from branches where name = 'main'
                on conflict (name) do update set closed_at = coalesce(branches.closed_at, excluded.closed_at)
                """,
                name,
            )

    async def delete_branch(self, name: str) -> None:
        """Forget a branch, whatever its state; missing is fine."""
        refuse_main(name)
        with _translated():
            await self._pool.execute("delete from branches where name = $1", name)

    async def branches(self, prefix: str = "") -> list[Branch]:
        """List the branches whose names start so, by name, without main."""
        with _translated():
            records = await self._pool.fetch(
                """
                select name, closed_at
                from branches
                where starts_with(name, $1) and name <> 'main'
                order by name
                """,
                prefix,
            )
        return [Branch(record["name"], record["closed_at"]) for record in records]

    async def is_closed(self, name: str) -> bool:
        """Whether a branch was closed or merged."""
        with _translated():
            is_closed: bool | None = await self._pool.fetchval(
                "select closed_at is not null from branches where name = $1", name
            )
        if is_closed is None:
            raise no_branch(name)
        return is_closed

    async def sweep_branches(self, closed_for: timedelta) -> list[str]:
        """Delete the branches that were closed longer ago than this, and say which."""
        with _translated():
            records = await self._pool.fetch(
                "delete from branches where closed_at < now() - $1::interval returning name", closed_for
            )
        return sorted(record["name"] for record in records)

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move the pointer of a table or view on a branch from one metadata file to the next."""
        refuse_commit_to_main(branch, table)
        with _translated():
            record = await self._pool.fetchrow(
                """
                with branch as (
                  select base_seq, closed_at from branches where name = $1 for update
                ),
                found as (
                  select pointers.location
                  from pointers
                  cross join branch
                  where table_name = $2 and (pointers.branch = $1 or pointers.branch = 'main' and seq <= base_seq)
                  order by pointers.branch = 'main', seq desc
                  limit 1
                ),
                moved as (
                  insert into pointers (branch, table_name, seq, location, kind)
                  select $1, $2, base_seq, $4, $5
                  from branch
                  where closed_at is null and (select location from found) is not distinct from $3
                  -- Whoever moved it while this waited for the branch is not in sight of `found`, only of this.
                  on conflict (branch, table_name, seq)
                    do update set location = excluded.location, kind = excluded.kind
                  where pointers.location is not distinct from $3
                  returning seq
                )
                select
                  closed_at is not null as is_closed,
                  (select location from found) as location,
                  exists (select from moved) as is_moved
                from branch
                """,
                branch,
                str(table),
                expected,
                new.location if new else None,
                kind_of(new),
            )
        if record is None:
            raise no_branch(branch)
        if record["is_closed"]:
            raise branch_closed(branch)
        if not record["is_moved"]:
            raise Conflict(
                f"{str(table)!r} on {branch!r} is not at {expected} any more: it was at {record['location']}"
            )

    async def merge(
        self, branch: str, run_id: UUID | None, attempt: int | None, since: str = BEGINNING
    ) -> Merged | None:
        """Put all tables that a branch changed on main at once, or none, and close the branch."""
        refuse_main(branch)
        with _translated():
            async with transaction(self._pool) as connection:
                return await merge_branch(connection, branch, run_id, attempt, since=_seq(since))

    async def find_merge(self, run_id: UUID, since: str) -> Merged | None:
        """Look for the merge of a run in the log after a snapshot."""
        with _translated():
            async with self._pool.acquire() as connection:
                return await merge_of(connection, run_id, since=_seq(since))

    async def history(self, table: Qualified, limit: int, before: str | None = None) -> list[TableChange]:
        """List the changes of a table on main, newest first, from before a snapshot if one is given."""
        with _translated():
            records = await self._pool.fetch(
                """
                select merges.seq, merges.at, merges.run_id, merges.attempt, pointers.location
                from pointers
                join merges on merges.seq = pointers.seq
                where pointers.branch = 'main'
                  and pointers.table_name = $1
                  and ($2::bigint is null or pointers.seq < $2)
                order by pointers.seq desc
                limit $3
                """,
                str(table),
                None if before is None else _seq(before),
                limit,
            )
        return [
            TableChange(str(record["seq"]), record["at"], record["run_id"], record["attempt"], record["location"])
            for record in records
        ]

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Say which tables and views there are at a reference, by name."""
        return await self._pointers(at, None)

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for at a reference; None where it stands for nothing."""
        return (await self._pointers(at, name)).get(name)

    async def live_metadata(self) -> set[Relation]:
        """List all tables and views that are on main now, or on any branch, open or closed."""
        with _translated():
            records = await self._pool.fetch(
                """
                select distinct newest.location, newest.kind
                from branches
                cross join lateral (
                  select distinct on (table_name) location, kind
                  from pointers
                  where pointers.branch = branches.name
                    or pointers.branch = 'main' and pointers.seq <= branches.base_seq
                  order by table_name, pointers.branch = 'main', pointers.seq desc
                ) as newest
                where newest.location is not null
                """
            )
        return {relation_of(record) for record in records}

    async def past_metadata(self, since: datetime | None) -> set[Relation]:
        """List all tables and views of all entries of the log, back to a time if one is given."""
        with _translated():
            records = await self._pool.fetch(
                """
                with oldest as (
                  select coalesce(min(seq), (select base_seq from branches where name = 'main')) as seq
                  from merges
                  where $1::timestamptz is null or at >= $1
                )
                select distinct pointers.location, pointers.kind
                from pointers
                cross join oldest
                where pointers.branch = 'main'
                  and pointers.location is not null
                  -- The oldest entry shows what earlier ones brought and nobody has changed by then.
                  and not exists (
                    select from pointers as later
                    where later.branch = 'main'
                      and later.table_name = pointers.table_name
                      and later.seq > pointers.seq
                      and later.seq <= oldest.seq
                  )
                """,
                since,
            )
        return {relation_of(record) for record in records}

    async def _pointers(self, at: str, table: Qualified | None) -> dict[Qualified, Relation]:
        snapshot = _seq(at) if at.isdecimal() else None
        with _translated():
            records = await self._pool.fetch(
                """
                with reference as (
                  select case when $2::bigint is null then name end as own, coalesce($2, base_seq) as seq
                  from branches
                  where name = $1 and ($2 is null or $2 <= base_seq)
                )
                select newest.table_name, newest.location, newest.kind
                from reference
                left join lateral (
                  select distinct on (table_name) table_name, location, kind
                  from pointers
                  where (branch = reference.own or branch = 'main' and pointers.seq <= reference.seq)
                    and ($3::text is null or table_name = $3)
                  order by table_name, branch = 'main', pointers.seq desc
                ) as newest on true
                """,
                at if snapshot is None else MAIN,
                snapshot,
                None if table is None else str(table),
            )
        if not records:
            raise NotFound(f"no branch or snapshot {at!r}" if snapshot is None else f"no snapshot {at!r}")
        return {
            Qualified.parse(record["table_name"]): relation_of(record)
            for record in records
            if record["location"] is not None
        }


def _seq(snapshot: str) -> int:
    if not snapshot.isdecimal():
        raise Invalid(f"{snapshot!r} is not a snapshot")
    if int(snapshot) > _MAX_SEQ:
        raise NotFound(f"no snapshot {snapshot!r}")
    return int(snapshot)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.UndefinedTableError as error:
        raise Unavailable("the lakehouse has no tables yet: a runner makes them when it starts") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise Forbidden(f"this role may not do that to the lakehouse: {error}") from error
