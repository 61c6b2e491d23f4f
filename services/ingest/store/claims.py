"""Runs that ask for files, the answers they got, and what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from contracts.landing import ClaimedFile, ZoneForm
from services.ingest.domain import Claim, Move, Place, ReadState, RunRecord, ZoneFile
from services.ingest.store.zones import ZoneRecord
from shared.database import Connection


@dataclass(frozen=True)
class AskingRun:
    """A run whose end nobody told of yet."""

    run_id: UUID
    pipeline_id: UUID
    pipeline: str


@dataclass(frozen=True)
class HeldFile:
    """A claim, and where its file lies."""

    zone_id: UUID
    position: int
    place: Place
    claim: Claim
    etag: str


async def take_turn(connection: Connection, pipeline_id: UUID) -> None:
    """Let the runs of a pipeline ask, check and settle one after the other."""
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('files of ' || $1, 0))", str(pipeline_id))


async def enter(connection: Connection, run_id: UUID, pipeline_id: UUID, pipeline: str, attempt: int) -> RunRecord:
    """Note that an attempt of a run asks, and say what was known of the run before or is now."""
    row = await connection.fetchrow(
        """
        insert into runs as run (run_id, pipeline_id, pipeline, newest_attempt)
        values ($1, $2, $3, $4)
        on conflict (run_id) do update set newest_attempt = greatest(run.newest_attempt, excluded.newest_attempt)
        returning settled_at is not null as is_settled, newest_attempt, changed_attempt
        """,
        run_id,
        pipeline_id,
        pipeline,
        attempt,
    )
    assert row is not None
    return RunRecord(**row)


async def run(db: asyncpg.Pool | Connection, run_id: UUID) -> tuple[UUID, RunRecord] | None:
    """The pipeline of a run that asked or ended, and what is known of the run."""
    row = await db.fetchrow(
        """
        select pipeline_id, settled_at is not null as is_settled, newest_attempt, changed_attempt
        from runs
        where run_id = $1
        """,
        run_id,
    )
    if row is None:
        return None
    return row["pipeline_id"], RunRecord(row["is_settled"], row["newest_attempt"], row["changed_attempt"])


async def is_earlier_unsettled(connection: Connection, run_id: UUID, pipeline_id: UUID) -> bool:
    """Whether another run of the pipeline got an answer and is not settled."""
    return bool(
        await connection.fetchval(
            """
            select exists (
              select from runs as run
              where run.pipeline_id = $2 and run.run_id <> $1 and run.settled_at is null
                and exists (select from file_claims as claim where claim.run_id = run.run_id)
            )
            """,
            run_id,
            pipeline_id,
        )
    )


async def answered_zone(
    connection: Connection, run_id: UUID, namespace: str, zone: str, form: ZoneForm
) -> ZoneRecord | None:
    """The zone of the answer that a run got before for this name and form, even if the zone is gone since."""
    row = await connection.fetchrow(
        """
        select zone.id, zone.namespace, zone.name, zone.expected_schema
        from file_claims as claim
        join landing_zones as zone on zone.id = claim.zone_id
        where claim.run_id = $1 and claim.namespace = $2 and claim.zone = $3 and claim.form = $4
        """,
        run_id,
        namespace,
        zone,
        form,
    )
    return None if row is None else ZoneRecord(**row)


async def zone_files(connection: Connection, zone_id: UUID, pipeline_id: UUID) -> tuple[list[ZoneFile], set[UUID]]:
    """What a zone holds, the oldest first, and which of it good runs of the pipeline have read."""
    rows = await connection.fetch(
        """
        select file.id, file.key, file.version_id, exists (
            select from file_reads as reading
            where reading.file_id = file.id and reading.pipeline_id = $2 and reading.state = 'read'
          ) as was_read
        from landing_files as file
        where file.zone_id = $1 and file.is_current and file.state in ('landed', 'processed')
        order by file.uploaded_at, file.filename
        """,
        zone_id,
        pipeline_id,
    )
    files = [ZoneFile(row["id"], row["key"], row["version_id"]) for row in rows]
    return files, {row["id"] for row in rows if row["was_read"]}


async def keep(
    connection: Connection,
    run_id: UUID,
    pipeline_id: UUID,
    zone: ZoneRecord,
    form: ZoneForm,
    files: Sequence[ZoneFile],
) -> None:
    """Keep the answer that a run got, an empty one too."""
    await connection.execute(
        "insert into file_claims (run_id, namespace, zone, form, zone_id) values ($1, $2, $3, $4, $5)",
        run_id,
        zone.namespace,
        zone.name,
        form,
        zone.id,
    )
    await connection.execute(
        """
        insert into file_reads (run_id, zone_id, form, position, file_id, pipeline_id)
        select $1, $2, $3, position, file_id, $5
        from unnest($4::uuid[]) with ordinality as file (file_id, position)
        """,
        run_id,
        zone.id,
        form,
        [file.file_id for file in files],
        pipeline_id,
    )


async def kept_files(
    connection: Connection, run_id: UUID, zone_id: UUID, form: ZoneForm, *, after: int, limit: int
) -> list[tuple[int, ClaimedFile]]:
    """The files of an answer, with their positions, from one position on."""
    rows = await connection.fetch(
        """
        select reading.position, file.id, file.filename, file.key, file.version_id, file.size_bytes
        from file_reads as reading
        join landing_files as file on file.id = reading.file_id
        where reading.run_id = $1 and reading.zone_id = $2 and reading.form = $3 and reading.position > $4
          and reading.state = 'claimed'
        order by reading.position
        limit $5
        """,
        run_id,
        zone_id,
        form,
        after,
        limit,
    )
    return [(row["position"], _claimed_file(row)) for row in rows]


async def last_file(connection: Connection, zone_id: UUID) -> ClaimedFile | None:
    """The newest file that the zone holds or has archived."""
    row = await connection.fetchrow(
        """
        select id, filename, key, version_id, size_bytes
        from landing_files
        where zone_id = $1 and state in ('landed', 'processed') and (is_current or archiving_at is not null)
        order by uploaded_at desc, filename desc
        limit 1
        """,
        zone_id,
    )
    return None if row is None else _claimed_file(row)


async def held(db: asyncpg.Pool | Connection, run_id: UUID) -> list[HeldFile]:
    """What a run holds."""
    rows = await db.fetch(
        """
        select reading.zone_id, reading.position, reading.form, zone.namespace, zone.name, file.id, file.filename,
          file.key, file.version_id, file.etag
        from file_reads as reading
        join landing_files as file on file.id = reading.file_id
        join landing_zones as zone on zone.id = reading.zone_id
        where reading.run_id = $1 and reading.state = 'claimed'
        order by reading.zone_id, reading.form, reading.position
        """,
        run_id,
    )
    return [
        HeldFile(
            zone_id=row["zone_id"],
            position=row["position"],
            place=Place(row["namespace"], row["name"], row["filename"]),
            claim=Claim(ZoneForm(row["form"]), ZoneFile(row["id"], row["key"], row["version_id"])),
            etag=row["etag"],
        )
        for row in rows
    ]


async def current_files(
    connection: Connection, zone_ids: Sequence[UUID], keys: Sequence[str], pipeline_id: UUID
) -> tuple[dict[str, ZoneFile], set[UUID]]:
    """Key → what these zones give out under it, and which of it good runs of the pipeline have read."""
    rows = await connection.fetch(
        """
        select file.id, file.key, file.version_id, exists (
            select from file_reads as reading
            where reading.file_id = file.id and reading.pipeline_id = $3 and reading.state = 'read'
          ) as was_read
        from landing_files as file
        where file.zone_id = any($1) and file.key = any($2) and file.is_current
          and file.state in ('landed', 'processed')
        """,
        zone_ids,
        keys,
        pipeline_id,
    )
    files = {row["key"]: ZoneFile(row["id"], row["key"], row["version_id"]) for row in rows}
    return files, {row["id"] for row in rows if row["was_read"]}


async def move(connection: Connection, run_id: UUID, attempt: int, moves: Sequence[tuple[HeldFile, Move]]) -> None:
    """Let claims become what the zone now holds, and note that the attempt was told."""
    await connection.executemany(
        """
        update file_reads
        set file_id = coalesce($5, file_id),
          state = case when $5::uuid is null then 'released' else 'claimed' end,
          changed_attempt = $6
        where run_id = $1 and zone_id = $2 and form = $3 and position = $4
        """,
        [
            (run_id, held.zone_id, move.claim.form, held.position, move.to and move.to.file_id, attempt)
            for held, move in moves
        ],
    )
    await connection.execute("update runs set changed_attempt = $2 where run_id = $1", run_id, attempt)


async def changed_keys(db: asyncpg.Pool | Connection, run_id: UUID, attempt: int, limit: int) -> list[str]:
    """The keys of the claims that moved when this attempt was told."""
    rows = await db.fetch(
        """
        select distinct file.key
        from file_reads as reading
        join landing_files as file on file.id = reading.file_id
        where reading.run_id = $1 and reading.changed_attempt = $2
        order by file.key
        limit $3
        """,
        run_id,
        attempt,
        limit,
    )
    return [row["key"] for row in rows]


async def mark_settled(
    connection: Connection, run_id: UUID, pipeline_id: UUID, pipeline: str, *, is_archiving: bool
) -> bool:
    """Leave the mark of a run that has ended, with claims or without; whether it was not there before."""
    return bool(
        await connection.fetchval(
            """
            insert into runs as run (run_id, pipeline_id, pipeline, settled_at, is_archiving)
            values ($1, $2, $3, now(), $4)
            on conflict (run_id) do update set settled_at = now(), is_archiving = excluded.is_archiving
              where run.settled_at is null
            returning true
            """,
            run_id,
            pipeline_id,
            pipeline,
            is_archiving,
        )
    )


async def settle(connection: Connection, run_id: UUID, state: ReadState) -> bool:
    """End all claims of a run; whether it had any."""
    done = await connection.execute(
        "update file_reads set state = $2 where run_id = $1 and state = 'claimed'", run_id, state
    )
    return done != "UPDATE 0"


async def claim_unsettled(db: asyncpg.Pool, since: timedelta, limit: int) -> list[AskingRun]:
    """Runs that got answers, and of whose end nothing was heard for a while; no other replica gets them now."""
    rows = await db.fetch(
        """
        update runs as run set looked_at = now()
        from (
          select run_id from runs as asking
          where settled_at is null and looked_at <= now() - $1::interval
            and exists (select from file_claims as claim where claim.run_id = asking.run_id)
          order by looked_at
          limit $2
          for no key update skip locked
        ) as due
        where run.run_id = due.run_id
        returning run.run_id, run.pipeline_id, run.pipeline
        """,
        since,
        limit,
    )
    return [AskingRun(**row) for row in rows]


def _claimed_file(row: asyncpg.Record) -> ClaimedFile:
    return ClaimedFile(
        file_id=row["id"],
        filename=row["filename"],
        key=row["key"],
        version_id=row["version_id"],
        size_bytes=row["size_bytes"],
    )
