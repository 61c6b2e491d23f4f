"""Files of a run: claimed when first asked for, checked after writing, settled when the run ends."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from contracts.landing import CheckFiles, ClaimedFiles, ClaimFiles, FileProcessed, FilesChecked
from contracts.messages import derived_id
from contracts.runs import FindRunOutcome, RunStatus
from services.ingest.arrivals import reconcile
from services.ingest.domain import (
    PAGE_FILES,
    Changed,
    NotYet,
    Over,
    ReadState,
    Ready,
    RunRecord,
    Unchanged,
    ZoneFile,
    answer_claim,
    fitting,
    recheck,
    settled_state,
)
from services.ingest.keys import zone_prefix
from services.ingest.store import archive, claims, files, zones
from services.ingest.store.claims import HeldFile
from services.ingest.store.zones import ZoneRecord
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.errors import Invalid, NotFound
from shared.object_store import ObjectStore
from shared.outbox import emit

_ASKED_AT_A_TIME: Final = 20
_TOLD_KEYS: Final = 20
_HEADS_FOR_A_LISTING: Final = 50
"""As many single questions take as long as listing a thousand objects (SeaweedFS: 75 ms)."""
_HEADS_AT_ONCE: Final = 16


# Claiming


async def claim(db: asyncpg.Pool, query: ClaimFiles) -> ClaimedFiles:
    """Answer which files a run reads; the first answer stands."""
    async with transaction(db) as connection:
        await claims.take_turn(connection, query.pipeline_id)
        run = await claims.enter(connection, query.run_id, query.pipeline_id, query.pipeline, query.attempt)
        zone, kept = await _kept(connection, query)
        match await _answer(connection, run, query, zone, kept):
            case Over():
                return ClaimedFiles(state="over")
            case NotYet():
                return ClaimedFiles(state="not_yet")
            case Ready(files=ready, is_new=is_new):
                if is_new:
                    await claims.keep(connection, query.run_id, query.pipeline_id, zone, query.form, ready)
                return await _page(connection, query, zone)


async def _kept(connection: Connection, query: ClaimFiles) -> tuple[ZoneRecord, tuple[ZoneFile, ...] | None]:
    """The zone that is asked for, and the answer that the run got before."""
    answered = await claims.answered_zone(connection, query.run_id, query.namespace, query.zone, query.form)
    if answered is not None:
        # Its files are read page by page below; that there is an answer is all that decides.
        return answered, ()
    zone = await zones.find(connection, query.namespace, query.zone)
    if zone is None:
        raise NotFound(f"no landing zone {query.namespace}/{query.zone}")
    return zone, None


async def _answer(
    connection: Connection,
    run: RunRecord,
    query: ClaimFiles,
    zone: ZoneRecord,
    kept: tuple[ZoneFile, ...] | None,
) -> Ready | NotYet | Over:
    zone_files: list[ZoneFile] = []
    read_ids: set[UUID] = set()
    is_earlier_unsettled = False
    if kept is None:
        await zones.hold(connection, zone.id)
        zone_files, read_ids = await claims.zone_files(connection, zone.id, query.pipeline_id)
        is_earlier_unsettled = await claims.is_earlier_unsettled(connection, query.run_id, query.pipeline_id)
    return answer_claim(
        run,
        query.attempt,
        query.form,
        kept=kept,
        zone_files=zone_files,
        read_ids=read_ids,
        is_earlier_unsettled=is_earlier_unsettled,
    )


async def _page(connection: Connection, query: ClaimFiles, zone: ZoneRecord) -> ClaimedFiles:
    after = _position(query.cursor)
    found = await claims.kept_files(connection, query.run_id, zone.id, query.form, after=after, limit=PAGE_FILES + 1)
    shown = found[: fitting([(file.filename, file.key) for _, file in found])] if found else []
    is_empty = not found and query.cursor is None
    return ClaimedFiles(
        state="ready",
        files=[file for _, file in shown],
        next_cursor=_cursor(shown[-1][0]) if len(shown) < len(found) else None,
        expected_schema=zone.expected_schema,
        last_file=await claims.last_file(connection, zone.id) if is_empty else None,
    )


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        return int(urlsafe_b64decode(cursor.encode()).decode())
    except ValueError as error:
        raise Invalid(f"{cursor!r} is not a cursor of this list") from error


def _cursor(position: int) -> str:
    return urlsafe_b64encode(str(position).encode()).decode()


# Checking


async def check(db: asyncpg.Pool, objects: ObjectStore, bucket: str, query: CheckFiles) -> FilesChecked:
    """Look in the store whether it still holds what a run claimed; claims of what changed move."""
    known = await claims.run(db, query.run_id)
    if known is None:
        return FilesChecked(state="unchanged")
    pipeline_id, run = known
    # Without claims this says whether the attempt may go on at all.
    match recheck(run, query.attempt, (), {}):
        case Over():
            return FilesChecked(state="over")
        case Changed():
            return await _changed(db, query)
        case Unchanged():
            differing = await _differing(db, objects, await claims.held(db, query.run_id))
    if not differing:
        return FilesChecked(state="unchanged")
    for place in {file.place for file in differing}:
        await reconcile(db, objects, bucket, place)
    async with transaction(db) as connection:
        await claims.take_turn(connection, pipeline_id)
        return await _recheck(connection, query, pipeline_id, {file.claim.file.key for file in differing})


async def _changed(db: asyncpg.Pool | Connection, query: CheckFiles) -> FilesChecked:
    keys = await claims.changed_keys(db, query.run_id, query.attempt, _TOLD_KEYS)
    return FilesChecked(state="changed", changed=keys)


async def _recheck(connection: Connection, query: CheckFiles, pipeline_id: UUID, differing: set[str]) -> FilesChecked:
    known = await claims.run(connection, query.run_id)
    assert known is not None  # runs are never forgotten
    run = known[1]
    held = await claims.held(connection, query.run_id)
    suspects = [file for file in held if file.claim.file.key in differing]
    zone_ids = list({file.zone_id for file in suspects})
    found, read_ids = await claims.current_files(connection, zone_ids, list(differing), pipeline_id)
    current = {key: found.get(key) for key in differing}
    match recheck(run, query.attempt, [file.claim for file in suspects], current, read_ids=read_ids):
        case Over():
            return FilesChecked(state="over")
        case Unchanged():
            return FilesChecked(state="unchanged")
        case Changed(moves=moves):
            if moves:
                by_claim = {(file.claim.form, file.claim.file.key): file for file in suspects}
                pairs = [(by_claim[move.claim.form, move.claim.file.key], move) for move in moves]
                await claims.move(connection, query.run_id, query.attempt, pairs)
            return await _changed(connection, query)


async def _differing(db: asyncpg.Pool, objects: ObjectStore, held: Sequence[HeldFile]) -> list[HeldFile]:
    """Those files under whose keys the store holds something else now."""
    found: list[HeldFile] = []
    for zone_id, of_zone in _by_zone(held).items():
        if await _is_listing_cheaper(db, zone_id, len(of_zone)):
            found += await _differing_by_listing(objects, of_zone)
        else:
            found += await _differing_one_by_one(objects, of_zone)
    return found


async def _is_listing_cheaper(db: asyncpg.Pool, zone_id: UUID, count: int) -> bool:
    if count <= _HEADS_FOR_A_LISTING:
        return False
    return count > _HEADS_FOR_A_LISTING * await files.count_stored(db, zone_id) / 1000


def _by_zone(held: Iterable[HeldFile]) -> Mapping[UUID, list[HeldFile]]:
    zones_of_files: dict[UUID, list[HeldFile]] = {}
    for file in held:
        zones_of_files.setdefault(file.zone_id, []).append(file)
    return zones_of_files


async def _differing_by_listing(objects: ObjectStore, held: Sequence[HeldFile]) -> list[HeldFile]:
    """Compare by content, as a listing of objects names no versions: equal content gives equal rows."""
    place = held[0].place
    wanted = {file.claim.file.key: file for file in held}
    etags = {
        found.key: found.etag
        async for found in objects.objects(zone_prefix(place.namespace, place.zone))
        if found.key in wanted
    }
    return [file for file in held if etags.get(file.claim.file.key) != file.etag]


async def _differing_one_by_one(objects: ObjectStore, held: Sequence[HeldFile]) -> list[HeldFile]:
    limit = asyncio.Semaphore(_HEADS_AT_ONCE)

    async def differs(file: HeldFile) -> bool:
        async with limit:
            try:
                found = await objects.head(file.claim.file.key)
            except NotFound:
                return True
        return (found.version_id or "null") != file.claim.file.version_id

    answers = await asyncio.gather(*(differs(file) for file in held))
    return [file for file, is_different in zip(held, answers, strict=True) if is_different]


# Settling


async def settle(
    db: asyncpg.Pool, *, run_id: UUID, pipeline_id: UUID, pipeline: str, status: RunStatus, dry_run: bool
) -> bool:
    """Leave the mark that a run has ended: its files are read or released; whether it had any.

    Of what it read `file.processed` is said; where its pipeline archives, once that is done.
    """
    async with transaction(db) as connection:
        await claims.take_turn(connection, pipeline_id)
        state = settled_state(status, dry_run=dry_run)
        is_archiving = state is ReadState.READ and await archive.archives_files(connection, pipeline_id)
        if not await claims.mark_settled(connection, run_id, pipeline_id, pipeline, is_archiving=is_archiving):
            return False
        has_files = await claims.settle(connection, run_id, state)
        if state is not ReadState.READ or not has_files:
            return has_files
        await files.mark_processed(connection, run_id)
        if is_archiving:
            await archive.want(connection, run_id)
        else:
            await say_processed(connection, run_id, pipeline_id, pipeline)
    return True


async def say_processed(connection: Connection, run_id: UUID, pipeline_id: UUID, pipeline: str) -> None:
    """Say which files a run has read, if any."""
    processed = await archive.processed_zones(connection, run_id)
    if not processed:
        return
    await emit(
        connection,
        FileProcessed(
            event_id=derived_id("file.processed", run_id),
            run_id=run_id,
            pipeline=pipeline,
            pipeline_id=pipeline_id,
            zones=processed,
        ),
    )


async def settle_forgotten(db: asyncpg.Pool, bus: Bus, unsettled: timedelta) -> None:
    """Ask catalog about the runs of whose end nothing was heard for so long; any number of replicas may do so."""
    for run in await claims.claim_unsettled(db, unsettled, _ASKED_AT_A_TIME):
        outcome = await bus.ask(FindRunOutcome(run_id=run.run_id))
        status = outcome.status if outcome.is_known and not outcome.is_rejected else RunStatus.FAILED
        if status is not None and status.is_terminal:
            await settle(
                db,
                run_id=run.run_id,
                pipeline_id=run.pipeline_id,
                pipeline=run.pipeline,
                status=status,
                dry_run=outcome.dry_run,
            )
