"""Files in zones: what is on record of them, version by version."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.landing import FileState, LandingFile
from services.ingest.domain import Arrival, Known
from shared.database import Connection

_SHOWN = """
  file.id, file.zone_id, file.filename, file.key as s3_path, file.size_bytes, file.content_type, file.etag, file.state,
  file.reason, file.processed_by, file.uploaded_by, file.uploaded_at
"""
_LISTED = """
  zone_id = $1
  and case
    when $2::text is null then is_current or (archiving_at is not null and state = 'processed')
    else state = $2
  end
"""


async def land(connection: Connection, arrivals: Sequence[tuple[UUID, Arrival]]) -> set[UUID]:
    """Record versions, each with its zone's id, and say which went on record.

    A version that is on record is left out, and so is a current one whose name has another current version.
    """
    # In one order everywhere: transactions that wait for each other's rows must not wait in a circle.
    ordered = sorted(arrivals, key=lambda item: (item[0], item[1].seen.place.filename))
    rows = await connection.fetch(
        """
        insert into landing_files
          (id, zone_id, filename, key, version_id, etag, size_bytes, content_type, state, reason, is_current,
           uploaded_by, uploaded_at)
        select id, zone_id, filename, key, version_id, etag, size_bytes, content_type, state, reason, is_current,
          uploaded_by, uploaded_at
        from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
          $9::text[], $10::text[], $11::boolean[], $12::text[], $13::timestamptz[])
          with ordinality as file (id, zone_id, filename, key, version_id, etag, size_bytes, content_type, state,
            reason, is_current, uploaded_by, uploaded_at, position)
        order by position
        on conflict do nothing
        returning id
        """,
        [arrival.seen.file_id for _, arrival in ordered],
        [zone_id for zone_id, _ in ordered],
        [arrival.seen.place.filename for _, arrival in ordered],
        [arrival.seen.place.key for _, arrival in ordered],
        [arrival.seen.version_id for _, arrival in ordered],
        [arrival.seen.etag for _, arrival in ordered],
        [arrival.seen.size_bytes for _, arrival in ordered],
        [arrival.seen.content_type for _, arrival in ordered],
        [arrival.state for _, arrival in ordered],
        [arrival.seen.problem for _, arrival in ordered],
        [arrival.is_current for _, arrival in ordered],
        [arrival.seen.uploaded_by for _, arrival in ordered],
        [arrival.seen.at for _, arrival in ordered],
    )
    return {row["id"] for row in rows}


async def fill_in(db: asyncpg.Pool, file_id: UUID, *, content_type: str | None, uploaded_by: str | None) -> None:
    """Add what those did not know who told of a file before."""
    await db.execute(
        """
        update landing_files
        set content_type = coalesce($2, content_type), uploaded_by = coalesce(uploaded_by, $3)
        where id = $1
        """,
        file_id,
        content_type,
        uploaded_by,
    )


async def known(connection: Connection, zone_id: UUID, filename: str, ids: Sequence[UUID]) -> list[Known]:
    """The current version of a name, locked, and those of these versions that are on record."""
    rows = await connection.fetch(
        """
        select id, state, is_current, is_withdrawn, processed_by is not null as was_read
        from landing_files
        where (zone_id = $1 and filename = $2 and is_current) or id = any($3)
        order by id
        for no key update
        """,
        zone_id,
        filename,
        ids,
    )
    return [
        Known(row["id"], FileState(row["state"]), row["is_current"], row["is_withdrawn"], row["was_read"])
        for row in rows
    ]


async def known_ids(db: asyncpg.Pool | Connection, ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Those of these versions that are on record → whether they need no more attention: current, or withdrawn."""
    rows = await db.fetch("select id, is_current or is_withdrawn as is_fine from landing_files where id = any($1)", ids)
    return {row["id"]: row["is_fine"] for row in rows}


async def current_since(db: asyncpg.Pool, zone_id: UUID, recorded_before: datetime) -> dict[UUID, str]:
    """The current versions of a zone that were on record at a time: id → filename."""
    rows = await db.fetch(
        "select id, filename from landing_files where zone_id = $1 and is_current and recorded_at < $2",
        zone_id,
        recorded_before,
    )
    return {row["id"]: row["filename"] for row in rows}


async def retire(connection: Connection, file_id: UUID, state: FileState) -> None:
    """Make a version the current one of its name no more."""
    await connection.execute("update landing_files set is_current = false, state = $2 where id = $1", file_id, state)


async def restore(connection: Connection, file_id: UUID, state: FileState) -> bool:
    """Make a version current again, unless its name has got another current one."""
    return bool(
        await connection.fetchval(
            """
            update landing_files as file set is_current = true, state = $2
            where id = $1 and not exists (
              select from landing_files as other
              where other.zone_id = file.zone_id and other.filename = file.filename and other.is_current
            )
            returning true
            """,
            file_id,
            state,
        )
    )


async def withdraw(connection: Connection, zone_id: UUID, file_id: UUID) -> bool:
    """Take a file out of its zone for good; whether it was not out already."""
    return bool(
        await connection.fetchval(
            """
            update landing_files set is_current = false, is_withdrawn = true, state = 'removed'
            where id = $1 and zone_id = $2 and not (is_withdrawn and state = 'removed')
            returning true
            """,
            file_id,
            zone_id,
        )
    )


async def withdraw_all(connection: Connection, zone_id: UUID) -> list[UUID]:
    """Take all files out of a zone for good, the archived ones too; which they were."""
    rows = await connection.fetch(
        """
        update landing_files set is_current = false, is_withdrawn = true, state = 'removed'
        where zone_id = $1 and not (is_withdrawn and state = 'removed')
        returning id
        """,
        zone_id,
    )
    return [row["id"] for row in rows]


async def reject(connection: Connection, zone_id: UUID, file_id: UUID, reason: str) -> bool:
    """Keep a file out of `landing_zone()`; whether the zone holds it."""
    return bool(
        await connection.fetchval(
            """
            update landing_files set state = 'rejected', reason = $3
            where id = $1 and zone_id = $2 and is_current
            returning true
            """,
            file_id,
            zone_id,
            reason,
        )
    )


async def accept(connection: Connection, zone_id: UUID, file_id: UUID) -> bool:
    """Let a rejected file land that the zone holds; whether it does."""
    return bool(
        await connection.fetchval(
            """
            update landing_files
            set state = case when processed_by is null then 'landed' else 'processed' end, reason = null
            where id = $1 and zone_id = $2 and is_current and state = 'rejected'
            returning true
            """,
            file_id,
            zone_id,
        )
    )


async def show(db: asyncpg.Pool | Connection, zone_id: UUID, file_id: UUID) -> LandingFile | None:
    """One file of a zone."""
    row = await db.fetchrow(
        f"select {_SHOWN} from landing_files as file where file.id = $1 and file.zone_id = $2", file_id, zone_id
    )
    return None if row is None else LandingFile(**row)


async def stored_version(db: asyncpg.Pool, zone_id: UUID, file_id: UUID) -> str | None:
    """The version of its key that a file is, unless it was deleted."""
    version_id: str | None = await db.fetchval(
        "select version_id from landing_files where id = $1 and zone_id = $2 and state <> 'removed'", file_id, zone_id
    )
    return version_id


async def page(
    db: asyncpg.Pool, zone_id: UUID, state: FileState | None, *, limit: int, start: int
) -> list[LandingFile]:
    """Files of a zone, the newest first; without a state, those that it holds, has archived or is to archive."""
    rows = await db.fetch(
        f"""
        select {_SHOWN}
        from landing_files as file
        where {_LISTED}
        order by file.uploaded_at desc, file.id
        limit $3 offset $4
        """,
        zone_id,
        state,
        limit,
        start,
    )
    return [LandingFile(**row) for row in rows]


async def count(db: asyncpg.Pool, zone_id: UUID, state: FileState | None) -> int:
    """How many files `page` goes through."""
    return int(await db.fetchval(f"select count(*) from landing_files where {_LISTED}", zone_id, state))


async def mark_processed(connection: Connection, run_id: UUID) -> None:
    """Note on the files that a run has read that they were read by it."""
    await connection.execute(
        """
        with locked as (
          -- In one order: runs that have read the same files may end at the same time.
          select id
          from landing_files
          where id in (select file_id from file_reads where run_id = $1 and state = 'read')
          order by id
          for no key update
        )
        update landing_files as file
        set processed_by = $1,
          state = case when file.state in ('landed', 'superseded') then 'processed' else file.state end
        from locked
        where file.id = locked.id
        """,
        run_id,
    )


async def count_stored(db: asyncpg.Pool, zone_id: UUID) -> int:
    """About how many objects lie below the prefix of a zone, the archived ones too."""
    return int(
        await db.fetchval(
            "select count(*) from landing_files where zone_id = $1 and (is_current or archived_at is not null)", zone_id
        )
    )
