"""The SQL of namespaces."""

from uuid import UUID

import asyncpg

from contracts.namespaces import FoundNamespace, Namespace
from shared.database import Connection

_SHOWN = "name, description, created_by, created_at"


async def count(db: asyncpg.Pool) -> int:
    """How many namespaces there are."""
    total: int = await db.fetchval("select count(*) from namespaces where deleted_at is null")
    return total


async def page(db: asyncpg.Pool, *, limit: int, start: int) -> list[Namespace]:
    """Namespaces by name."""
    rows = await db.fetch(
        f"""
        select {_SHOWN}
        from namespaces
        where deleted_at is null
        order by name
        limit $1 offset $2
        """,
        limit,
        start,
    )
    return [Namespace.model_validate(dict(row)) for row in rows]


async def names(db: asyncpg.Pool) -> list[str]:
    """The names of all namespaces, in order."""
    rows = await db.fetch("select name from namespaces where deleted_at is null order by name")
    return [row["name"] for row in rows]


async def find(db: asyncpg.Pool, name: str) -> FoundNamespace | None:
    """The namespace of this name; None if there is none."""
    row = await db.fetchrow(f"select id, {_SHOWN} from namespaces where name = $1 and deleted_at is null", name)
    return FoundNamespace.model_validate(dict(row)) if row else None


async def create(db: asyncpg.Pool, name: str, description: str, created_by: str | None) -> Namespace | None:
    """Make a namespace; None if the name is taken."""
    return _namespace(
        await db.fetchrow(
            f"""
            insert into namespaces (name, description, created_by)
            values ($1, $2, $3)
            on conflict (name) do update
            set id = gen_random_uuid(), description = $2, created_by = $3, created_at = now(), deleted_at = null
            where namespaces.deleted_at is not null
            returning {_SHOWN}
            """,
            name,
            description,
            created_by,
        )
    )


async def describe(db: asyncpg.Pool, name: str, description: str) -> Namespace | None:
    """Describe a namespace anew; None if there is none of that name."""
    return _namespace(
        await db.fetchrow(
            f"update namespaces set description = $2 where name = $1 and deleted_at is null returning {_SHOWN}",
            name,
            description,
        )
    )


async def keep_from_deletion(db: Connection, name: str) -> bool:
    """Hold a namespace until the transaction ends; False if there is none of that name."""
    found = await db.fetchval("select name from namespaces where name = $1 and deleted_at is null for key share", name)
    return found is not None


async def lock(db: Connection, name: str) -> UUID | None:
    """Let nobody use a namespace until the transaction ends, and give its id; None if there is none of that name."""
    found: UUID | None = await db.fetchval(
        "select id from namespaces where name = $1 and deleted_at is null for update", name
    )
    return found


async def delete(db: Connection, name: str) -> None:
    """Delete a locked namespace."""
    await db.execute("update namespaces set deleted_at = now() where name = $1", name)


def _namespace(row: asyncpg.Record | None) -> Namespace | None:
    return Namespace.model_validate(dict(row)) if row else None
