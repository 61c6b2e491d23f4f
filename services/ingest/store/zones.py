"""Landing zones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.landing import ChangeZone, CreateZone, Zone
from shared.database import Connection

_ZONE = """
  zone.id, zone.namespace, zone.name, zone.description, zone.owner, zone.expected_schema, zone.processed_max_age_days,
  zone.auto_purge, zone.created_at, zone.updated_at, held.file_count, held.total_bytes
"""
_HELD = """
  cross join lateral (
    select count(*) as file_count, coalesce(sum(size_bytes), 0)::bigint as total_bytes
    from landing_files
    where zone_id = zone.id and is_current and state in ('landed', 'processed')
  ) as held
"""


@dataclass(frozen=True)
class ZoneRecord:
    """What the work on a zone's files needs to know about it."""

    id: UUID
    namespace: str
    name: str
    expected_schema: str


@dataclass(frozen=True)
class DueZone:
    """A zone whose prefix is to be listed, and the moment from which on the listing is newer than the record."""

    id: UUID
    namespace: str
    name: str
    since: datetime


async def take_turn(connection: Connection, namespace_id: UUID) -> None:
    """Let zones of a namespace be made before its end is noted, or after that."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('zones of ' || $1, 0))", str(namespace_id))


async def note_removed_namespace(connection: Connection, namespace_id: UUID) -> None:
    """Note that a namespace is gone, for zones that are still on their way to it."""
    await connection.execute(
        "insert into removed_namespaces (namespace_id) values ($1) on conflict do nothing", namespace_id
    )


async def is_namespace_removed(connection: Connection, namespace_id: UUID) -> bool:
    """Whether the end of a namespace was heard."""
    return bool(
        await connection.fetchval(
            "select exists (select from removed_namespaces where namespace_id = $1)", namespace_id
        )
    )


async def create(connection: Connection, zone: CreateZone, namespace_id: UUID | None) -> UUID | None:
    """Its id, or None if the name is taken."""
    zone_id: UUID | None = await connection.fetchval(
        """
        insert into landing_zones
          (namespace, name, description, owner, expected_schema, processed_max_age_days, auto_purge, namespace_id)
        values ($1, $2, $3, nullif($4, ''), $5, $6, $7, $8)
        on conflict do nothing
        returning id
        """,
        zone.namespace,
        zone.name,
        zone.description,
        zone.owner,
        zone.expected_schema,
        zone.processed_max_age_days,
        zone.auto_purge,
        namespace_id,
    )
    return zone_id


async def change(db: asyncpg.Pool, zone: ChangeZone) -> bool:
    """Whether there is such a zone."""
    return bool(
        await db.fetchval(
            """
            update landing_zones
            set description = coalesce($3, description),
              owner = case when 'owner' = any($8::text[]) then null else nullif(coalesce($4, owner), '') end,
              expected_schema = coalesce($5, expected_schema),
              processed_max_age_days = case
                when 'processed_max_age_days' = any($8::text[]) then null
                else coalesce($6, processed_max_age_days)
              end,
              auto_purge = coalesce($7, auto_purge),
              updated_at = now()
            where namespace = $1 and name = $2 and removed_at is null
            returning true
            """,
            zone.namespace,
            zone.name,
            zone.description,
            zone.owner,
            zone.expected_schema,
            zone.processed_max_age_days,
            zone.auto_purge,
            list(zone.cleared),
        )
    )


async def remove(connection: Connection, namespace: str, name: str) -> UUID | None:
    """The id of the zone that is gone now, or None if there was none."""
    zone_id: UUID | None = await connection.fetchval(
        """
        update landing_zones set removed_at = now()
        where namespace = $1 and name = $2 and removed_at is null
        returning id
        """,
        namespace,
        name,
    )
    return zone_id


async def names_in(connection: Connection, namespace: str, namespace_id: UUID | None, until: datetime) -> list[str]:
    """The names of the zones of a namespace.

    Where its id is not known, or that of a zone's, they are those of its name that were made up to a moment.
    """
    rows = await connection.fetch(
        """
        select name
        from landing_zones
        where namespace = $1 and removed_at is null
          and coalesce(namespace_id = $2, created_at <= $3)
        order by name
        """,
        namespace,
        namespace_id,
        until,
    )
    return [row["name"] for row in rows]


async def show(db: asyncpg.Pool, namespace: str, name: str) -> Zone | None:
    """One zone, with the count of what it holds."""
    row = await db.fetchrow(
        f"""
        select {_ZONE}
        from landing_zones as zone {_HELD}
        where zone.namespace = $1 and zone.name = $2 and zone.removed_at is null
        """,
        namespace,
        name,
    )
    return None if row is None else Zone(**row)


async def page(db: asyncpg.Pool, namespace: str | None, *, limit: int, start: int) -> list[Zone]:
    """Zones by namespace and name, with the counts of what they hold."""
    rows = await db.fetch(
        f"""
        select {_ZONE}
        from (
          select id, namespace, name, description, owner, expected_schema, processed_max_age_days, auto_purge,
            created_at, updated_at
          from landing_zones
          where removed_at is null and ($1::text is null or namespace = $1)
          order by namespace, name
          limit $2 offset $3
        ) as zone {_HELD}
        order by zone.namespace, zone.name
        """,
        namespace,
        limit,
        start,
    )
    return [Zone(**row) for row in rows]


async def count(db: asyncpg.Pool, namespace: str | None) -> int:
    """How many zones there are."""
    return int(
        await db.fetchval(
            "select count(*) from landing_zones where removed_at is null and ($1::text is null or namespace = $1)",
            namespace,
        )
    )


async def find(db: asyncpg.Pool | Connection, namespace: str, name: str) -> ZoneRecord | None:
    """The zone of a name."""
    row = await db.fetchrow(
        """
        select id, namespace, name, expected_schema
        from landing_zones
        where namespace = $1 and name = $2 and removed_at is null
        """,
        namespace,
        name,
    )
    return None if row is None else ZoneRecord(**row)


async def hold(connection: Connection, zone_id: UUID) -> None:
    """Let nothing be cleared for deletion or archived while this transaction reads what the zone holds."""
    await connection.execute("select from landing_zones where id = $1 for share", zone_id)


async def await_claims(connection: Connection, zone_id: UUID) -> None:
    """Wait for the transactions that `hold` the zone, and keep new ones waiting."""
    await connection.execute("select from landing_zones where id = $1 for no key update", zone_id)


async def now(db: asyncpg.Pool) -> datetime:
    """The time by the clock that says when zones were swept."""
    moment: datetime = await db.fetchval("select now()")
    return moment


async def claim_due(db: asyncpg.Pool, before: datetime) -> DueZone | None:
    """The zone that was not swept for the longest time, if that was before then; no other replica gets it as well."""
    row = await db.fetchrow(
        """
        update landing_zones as zone set swept_at = now()
        from (
          select id from landing_zones
          where removed_at is null and (swept_at is null or swept_at < $1)
          order by swept_at nulls first
          limit 1
          for no key update skip locked
        ) as due
        where zone.id = due.id
        returning zone.id, zone.namespace, zone.name, now() as since
        """,
        before,
    )
    return None if row is None else DueZone(**row)


async def ids(connection: Connection, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """(namespace, zone) → id of those zones that exist."""
    rows = await connection.fetch(
        """
        select zone.id, zone.namespace, zone.name
        from (select distinct namespace, name from unnest($1::text[], $2::text[]) as place (namespace, name)) as wanted
        join landing_zones as zone on zone.namespace = wanted.namespace and zone.name = wanted.name
        where zone.removed_at is null
        """,
        [namespace for namespace, _ in places],
        [name for _, name in places],
    )
    return {(row["namespace"], row["name"]): row["id"] for row in rows}
