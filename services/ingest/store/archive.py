"""Which pipelines read a zone, what they want archived, and what may be deleted from the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from contracts.landing import ProcessedZone
from contracts.pipelines import PipelinePublished
from services.ingest.domain import Place
from shared.database import Connection

_UNSETTLED = """
  select from file_reads as reading
  join landing_files as version on version.id = reading.file_id
  where reading.state = 'claimed' and version.zone_id = {zone_id} and version.filename = {filename}
"""


@dataclass(frozen=True)
class ArchivableFile:
    """A file that has left its zone to be archived."""

    id: UUID
    zone_id: UUID
    place: Place
    version_id: str
    run_id: UUID
    tries: int
    """How often that was tried in vain."""


@dataclass(frozen=True)
class Deletion:
    """A version that is to be deleted from the store, with all older ones of its key."""

    key: str
    version_id: str
    tries: int
    """How often that was tried in vain."""


# Who reads


async def publish(connection: Connection, event: PipelinePublished) -> bool:
    """Note a pipeline's newest version; whether it is newer than what was noted, of a pipeline that still exists."""
    return bool(
        await connection.fetchval(
            """
            insert into published_pipelines as pipeline (pipeline_id, pipeline, version, archives_files)
            values ($1, $2, $3, $4)
            on conflict (pipeline_id) do update
              set version = excluded.version, archives_files = excluded.archives_files
              where pipeline.version < excluded.version and pipeline.removed_at is null
            returning true
            """,
            event.pipeline_id,
            event.pipeline,
            event.version,
            event.archives_files,
        )
    )


async def set_readers(connection: Connection, pipeline_id: UUID, zones: Sequence[tuple[str, str]]) -> None:
    """Note which zones a pipeline reads, and no others."""
    await connection.execute("delete from zone_readers where pipeline_id = $1", pipeline_id)
    await connection.execute(
        """
        insert into zone_readers (pipeline_id, namespace, zone)
        select distinct $1::uuid, namespace, zone
        from unnest($2::text[], $3::text[]) as read (namespace, zone)
        """,
        pipeline_id,
        [namespace for namespace, _ in zones],
        [zone for _, zone in zones],
    )


async def remove_pipeline(connection: Connection, pipeline_id: UUID, pipeline: str) -> None:
    """Note that a pipeline is gone, also if its publication was not heard of yet."""
    await connection.execute(
        """
        insert into published_pipelines (pipeline_id, pipeline, version, archives_files, removed_at)
        values ($1, $2, 0, false, now())
        on conflict (pipeline_id) do update set removed_at = now(), archives_files = false
        """,
        pipeline_id,
        pipeline,
    )
    await connection.execute("delete from zone_readers where pipeline_id = $1", pipeline_id)


async def archives_files(connection: Connection, pipeline_id: UUID) -> bool:
    """Whether the published version of a pipeline asks for archiving."""
    return bool(
        await connection.fetchval(
            "select archives_files from published_pipelines where pipeline_id = $1 and removed_at is null", pipeline_id
        )
    )


# What is to be archived


async def want(connection: Connection, run_id: UUID) -> None:
    """Note that the files which a run has read are to be archived as its."""
    await connection.execute(
        """
        update landing_files set archive_run_id = $1
        where id in (select file_id from file_reads where run_id = $1 and state = 'read')
          and archive_run_id is null and state = 'processed'
        """,
        run_id,
    )


async def zones_to_look_at(db: asyncpg.Pool) -> list[UUID]:
    """The zones with files that wait for being archived."""
    rows = await db.fetch(
        """
        select distinct zone_id
        from landing_files
        where archive_run_id is not null and archived_at is null and archiving_at is null
        """
    )
    return [row["zone_id"] for row in rows]


async def take_out(connection: Connection, zone_id: UUID) -> None:
    """Take those files out of a zone that every published reader of it has read, and that no unsettled run holds.

    A version that is not current any more has no other readers to wait for.
    """
    await connection.execute(
        f"""
        update landing_files as file set is_current = false, is_withdrawn = true, archiving_at = now()
        from landing_zones as zone
        where file.zone_id = $1 and zone.id = file.zone_id
          and file.archive_run_id is not null and file.archiving_at is null and file.archived_at is null
          and file.state = 'processed'
          and not exists ({_UNSETTLED.format(zone_id="file.zone_id", filename="file.filename")})
          and (not file.is_current or not exists (
            select from zone_readers as reader
            where reader.namespace = zone.namespace and reader.zone = zone.name and not exists (
              select from file_reads as reading
              where reading.file_id = file.id and reading.pipeline_id = reader.pipeline_id and reading.state = 'read'
            )
          ))
        """,
        zone_id,
    )


async def next_to_move(connection: Connection) -> ArchivableFile | None:
    """A file that has left its zone and is neither moved nor deleted, locked.

    None that another replica is moving, and none that was put off for longer.
    """
    row = await connection.fetchrow(
        """
        select file.id, file.zone_id, zone.namespace, zone.name, file.filename, file.version_id, file.archive_run_id,
          file.archive_tries
        from landing_files as file
        join landing_zones as zone on zone.id = file.zone_id
        where file.archiving_at is not null and file.archived_at is null and file.archive_run_id is not null
          and file.state = 'processed' and (file.archive_again_at is null or file.archive_again_at <= now())
        order by file.uploaded_at
        limit 1
        for no key update of file skip locked
        """
    )
    if row is None:
        return None
    place = Place(row["namespace"], row["name"], row["filename"])
    return ArchivableFile(
        row["id"], row["zone_id"], place, row["version_id"], row["archive_run_id"], row["archive_tries"]
    )


async def put_off_move(connection: Connection, file_id: UUID, pause: timedelta, reason: str) -> None:
    """Note that a locked file could not be moved, why, and for how long it is left alone."""
    await connection.execute(
        """
        update landing_files
        set archive_tries = archive_tries + 1, archive_again_at = now() + $2::interval, reason = $3
        where id = $1
        """,
        file_id,
        pause,
        reason,
    )


async def note_moved(connection: Connection, file_id: UUID, key: str, version_id: str) -> None:
    """Note where a locked file lies now."""
    await connection.execute(
        "update landing_files set key = $2, version_id = $3, archived_at = now(), reason = null where id = $1",
        file_id,
        key,
        version_id,
    )


async def note_lost(connection: Connection, file_id: UUID) -> None:
    """Note that a file was gone from the store before it could be archived."""
    await connection.execute(
        "update landing_files set state = 'removed', archive_run_id = null, archiving_at = null where id = $1", file_id
    )


# What is said of runs


async def unsaid_runs(db: asyncpg.Pool) -> list[UUID]:
    """Good runs of archiving pipelines of which `file.processed` was not said yet."""
    rows = await db.fetch("select run_id from runs where is_archiving and said_at is null order by settled_at")
    return [row["run_id"] for row in rows]


async def claim_saying(connection: Connection, run_id: UUID) -> tuple[UUID, str] | None:
    """Pipeline id and name of a run, if it is to be said now: none of its files is on the way, and nobody said it.

    Those are not waited for that the store has refused to take.
    """
    row = await connection.fetchrow(
        """
        update runs as run set said_at = now()
        where run_id = $1 and said_at is null and not exists (
          select from landing_files
          where archive_run_id = $1 and archiving_at is not null and archived_at is null and state = 'processed'
            and archive_tries = 0
        )
        returning pipeline_id, pipeline
        """,
        run_id,
    )
    return None if row is None else (row["pipeline_id"], row["pipeline"])


async def processed_zones(connection: Connection, run_id: UUID) -> list[ProcessedZone]:
    """How many files of which zones a run has read, and how many of them are archived as its."""
    rows = await connection.fetch(
        """
        select zone.namespace, zone.name as zone, count(distinct file.id) as files,
          count(distinct file.id) filter (where file.archive_run_id = $1 and file.archived_at is not null) as archived
        from file_reads as reading
        join landing_files as file on file.id = reading.file_id
        join landing_zones as zone on zone.id = reading.zone_id
        where reading.run_id = $1 and reading.state = 'read'
        group by zone.namespace, zone.name
        order by zone.namespace, zone.name
        """,
        run_id,
    )
    return [ProcessedZone(**row) for row in rows]


# What is to be deleted from the store


async def ask_to_delete(connection: Connection, file_ids: Sequence[UUID]) -> None:
    """Have these versions, and the older ones of their keys, deleted from the store when nobody reads them."""
    await connection.execute(
        """
        insert into store_deletions (key, version_id, zone_id, filename)
        select key, version_id, zone_id, filename
        from landing_files
        where id = any($1)
        on conflict do nothing
        """,
        file_ids,
    )


async def ask_to_delete_version(connection: Connection, file: ArchivableFile) -> None:
    """Have the version that a file was before it was archived, and the older ones of its key, deleted."""
    await connection.execute(
        """
        insert into store_deletions (key, version_id, zone_id, filename)
        values ($1, $2, $3, $4)
        on conflict do nothing
        """,
        file.place.key,
        file.version_id,
        file.zone_id,
        file.place.filename,
    )


async def expire(connection: Connection) -> None:
    """Have archived files deleted that are older than their zone keeps them."""
    rows = await connection.fetch(
        """
        update landing_files as file set state = 'removed'
        from landing_zones as zone
        where zone.id = file.zone_id and zone.auto_purge and file.state = 'processed'
          and file.archived_at < now() - make_interval(days => zone.processed_max_age_days)
        returning file.id
        """
    )
    await ask_to_delete(connection, [row["id"] for row in rows])


async def zones_to_clear(db: asyncpg.Pool) -> list[UUID]:
    """The zones with deletions that were not looked at, or had to wait."""
    rows = await db.fetch("select distinct zone_id from store_deletions where not is_clear")
    return [row["zone_id"] for row in rows]


async def clear(connection: Connection, zone_id: UUID) -> None:
    """Let those deletions of a zone go ahead whose names no unsettled run holds."""
    await connection.execute(
        f"""
        update store_deletions as deletion set is_clear = true
        where deletion.zone_id = $1 and not deletion.is_clear
          and not exists ({_UNSETTLED.format(zone_id="deletion.zone_id", filename="deletion.filename")})
        """,
        zone_id,
    )


async def next_deletion(connection: Connection) -> Deletion | None:
    """A deletion that may go ahead, locked; none that another replica is at, and none that was put off for longer."""
    row = await connection.fetchrow(
        """
        select key, version_id, tries
        from store_deletions
        where is_clear and (again_at is null or again_at <= now())
        order by requested_at
        limit 1
        for update skip locked
        """
    )
    return None if row is None else Deletion(**row)


async def put_off_deletion(connection: Connection, deletion: Deletion, pause: timedelta) -> None:
    """Note that a locked deletion was refused, and for how long it is left alone."""
    await connection.execute(
        """
        update store_deletions set tries = tries + 1, again_at = now() + $3::interval
        where key = $1 and version_id = $2
        """,
        deletion.key,
        deletion.version_id,
        pause,
    )


async def note_deleted(connection: Connection, deletion: Deletion) -> None:
    """Forget a deletion that is done."""
    await connection.execute(
        "delete from store_deletions where key = $1 and version_id = $2", deletion.key, deletion.version_id
    )
