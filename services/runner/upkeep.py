"""A runner looks after the lakehouse by itself, beside the runs: files that nothing needs, and too many small ones.

What it does is one runner's at a time: catalog leases each job. All of it may be broken off anywhere and is done again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter
from typing import Final
from uuid import UUID, uuid4

import structlog

from contracts.maintenance import ClaimUpkeep, CollectedFiles, CollectFiles, EndUpkeep, UpkeepClaimed, UpkeepJob
from contracts.names import Qualified
from services.runner.domain import UPKEEP_BRANCHES, FailureKind, may_interrupt
from services.runner.frames import (
    AskLocations,
    AskMove,
    CommitOn,
    Compacted,
    CompactOrder,
    Failed,
    FromProcess,
    NotCompacted,
    Rewritten,
)
from services.runner.gaps import Gap
from services.runner.lending import Lending
from services.runner.locating import locate
from services.runner.moving import move
from services.runner.pool import Process, ProcessLost
from services.runner.resources import Resources
from services.runner.watch import Allowance, Broken, watched
from shared.background import background, every, happens
from shared.errors import RatError
from shared.lakehouse.port import MAIN, BranchClosed, MergeConflict

log = structlog.get_logger()

_LEASE_SECONDS: Final = 60.0
_LOOKS: Final = 10
"""So many looks at a table while it gets the files that are worth a compaction, or fewer."""
_LOOK_SECONDS: Final = 0.2
"""Between two looks whether a run of the table is under way."""
_PATIENCE_SECONDS: Final = 30.0
"""How long a compaction that is ready waits for a moment without a run of its table."""
_TRIES: Final = 5
"""How often a compaction is committed anew because a run has merged meanwhile."""


@dataclass(frozen=True, repr=False)
class Upkeep:
    """What a runner does for the lakehouse by itself."""

    resources: Resources
    holder: str
    """What tells this runner from any other one."""
    looked_at: dict[Qualified, int] = field(default_factory=dict)
    """Files that a table had when there was nothing to do for it."""
    added: dict[Qualified, int] = field(default_factory=dict)
    """Files that runs of this runner have added to a table since it looked, and found that there is nothing to do."""

    async def look_after_changed_tables(self) -> None:
        """Compact tables when runs have changed them, one at a time."""
        while True:
            table, files = await self.resources.changed.next()
            if not self._is_worth_a_look(table, files):
                continue
            try:
                await self.look_after(table)
            except (RatError, OSError, ProcessLost) as error:
                log.warning("a table could not be looked after", table=str(table), error=str(error))

    def _is_worth_a_look(self, table: Qualified, files: int) -> bool:
        """Whether a table may have got many files since it was looked at, which reads its metadata."""
        added = self.added.pop(table, None)
        if added is None or added + files >= self.resources.settings.compaction_min_files // _LOOKS:
            return True
        self.added[table] = added + files
        return False

    async def look_after(self, table: Qualified) -> None:
        """Compact a table if it has many small files, and no other runner is at it."""
        files = await self._count_files(table)
        at_least = self.resources.settings.compaction_min_files
        if files < self.looked_at.get(table, 0) + at_least:
            self.added[table] = 0
            return
        async with self._lease(UpkeepJob.COMPACT, table) as is_mine:
            if is_mine and not await self._compact(table):
                self.looked_at[table] = files

    async def collect_now_and_then(self) -> None:
        """Remove files that nothing needs any more, if no runner did so lately."""
        interval = self.resources.settings.reaper_interval_minutes * 60
        # Nobody is in a hurry when it starts; after that, whoever asks first once it is time does it.
        await asyncio.sleep(interval)
        await every(interval / 4, lambda: self._collect_if_due(interval))

    async def _collect_if_due(self, interval_seconds: float) -> None:
        settings = self.resources.settings
        async with self._lease(UpkeepJob.COLLECT, None, interval_seconds) as is_mine:
            if is_mine:
                await self.collect_files(
                    CollectFiles(
                        grace_hours=settings.iceberg_orphan_file_max_age_days * 24,
                        history_days=settings.iceberg_snapshot_max_age_days,
                    )
                )

    async def collect_files(self, query: CollectFiles) -> CollectedFiles:
        """Remove the files of tables that nothing needs any more, or say which."""
        # With PyIceberg, which takes most of a second to import, and nothing else here needs.
        from shared.lakehouse.collection import find_surplus, remove
        from shared.lakehouse.files import TableFiles, s3_properties

        lakehouse, objects, settings = self.resources.lakehouse, self.resources.objects, self.resources.settings
        surplus = await find_surplus(
            lakehouse,
            objects,
            TableFiles(s3_properties(settings, "runner")),
            grace=timedelta(hours=query.grace_hours),
            history=None if query.history_days is None else timedelta(days=query.history_days),
        )
        report = surplus.report()
        if not query.dry_run:
            await remove(objects, surplus)
            log.info("files collected", files=report.files, bytes=report.bytes)
        return report

    async def _count_files(self, table: Qualified) -> int:
        """How many data files a table has, as its metadata says."""
        location = await self.resources.lakehouse.location(table)
        if location is None:
            return 0
        metadata = json.loads(await self.resources.objects.get(location.removeprefix("s3://").partition("/")[2]))
        current = metadata.get("current-snapshot-id")
        summaries = [one["summary"] for one in metadata.get("snapshots", []) if one["snapshot-id"] == current]
        return int(summaries[0].get("total-data-files", 0)) if summaries else 0

    async def _compact(self, table: Qualified) -> bool:
        """Let a process write the small files anew, and put them on main; False where there is nothing to do."""
        allowance = Allowance(
            self.resources.pool.memory_limit_bytes,
            timeout_seconds=self.resources.settings.compaction_timeout_seconds,
            timeout_name="compaction_timeout_seconds",
            phase="compaction",
        )
        try:
            async with self.resources.pool.process() as process:
                said = await watched(process, self._converse(process, table), allowance, asyncio.Event(), log.info)
        except Broken as broken:
            said = broken
        if isinstance(said, Broken):
            log.warning("a compaction was broken off", table=str(table), error=said.message)
            return False
        return said

    async def _converse(self, process: Process, table: Qualified) -> bool:
        """Give a process its order, with keys for it, and put what it has written on main."""
        lent = Lending(self.resources.keys, process, name=f"compact-{table}"[:64], zones_of=set(), writes=table)
        try:
            return await self._rewrite(process, table, lent)
        finally:
            await lent.end()

    async def _rewrite(self, process: Process, table: Qualified, lent: Lending) -> bool:
        began = perf_counter()
        order = CompactOrder(table=str(table), at_least=self.resources.settings.compaction_min_files)
        await lent.give()
        await process.send(order)
        match await self._answered(process, table, MAIN):
            case Rewritten(removed=removed, added=added):
                is_merged = await self._put_on_main(process, table)
            case NotCompacted():
                return False
            case Failed(kind=FailureKind.INTERNAL | FailureKind.MEMORY as kind, error=error):
                # Who knows what state the process is in.
                raise Broken(kind, error)
            case Failed(error=error):
                log.warning("a table could not be compacted", table=str(table), error=error)
                return False
            case other:
                raise AssertionError(f"{other.type!r} is no answer to an order to compact")
        log.info(
            "table compacted" if is_merged else "table changed while it was compacted",
            table=str(table),
            files_before=removed,
            files_after=added,
            seconds=round(perf_counter() - began, 3),
        )
        return True

    async def _answered(self, process: Process, table: Qualified, branch: str) -> FromProcess:
        """Answer what a process asks of a table on a branch, until it says something."""
        while True:
            match await process.receive():
                case AskLocations(tables=tables):
                    await process.send(await locate(self.resources.lakehouse, self.resources.objects, tables, branch))
                case AskMove() as question:
                    await process.send(await move(self.resources, branch, table, question))
                case said:
                    return said

    async def _put_on_main(self, process: Process, table: Qualified) -> bool:
        """Commit what was written anew and merge it; a run that changes the table meanwhile wins."""
        with self.resources.gaps.wanted(table) as gap:
            for _ in range(_TRIES):
                if not await self._wait_for_a_gap(table, gap):
                    break
                is_merged = await self._merged_now(process, table)
                if is_merged is not None:
                    return is_merged
        await process.send(CommitOn(branch=None))
        return False

    async def _merged_now(self, process: Process, table: Qualified) -> bool | None:
        """Commit and merge; False where the process has nothing to commit, None where it is worth another try."""
        branch = f"{UPKEEP_BRANCHES}{uuid4()}"
        await self.resources.lakehouse.create_branch(branch)
        try:
            await process.send(CommitOn(branch=branch))
            said = await self._answered(process, table, branch)
            if isinstance(said, Failed):
                log.warning("a table could not be compacted", table=str(table), error=said.error)
            if not isinstance(said, Compacted):
                return False
            await self.resources.lakehouse.merge(branch, None, None)
        except (MergeConflict, BranchClosed):
            return None
        finally:
            await self.resources.lakehouse.delete_branch(branch)
        await process.send(CommitOn(branch=None))
        return True

    async def _wait_for_a_gap(self, table: Qualified, gap: Gap) -> bool:
        """Wait until no run of the table is under way, or until it costs little to have one run again.

        A run that this runner has merged leaves a gap before it is said to have ended.
        """
        seen: set[UUID] = set()
        until = perf_counter() + _PATIENCE_SECONDS
        while perf_counter() < until:
            claimed = await self._claim(UpkeepJob.COMPACT, table)
            if not claimed.is_granted:
                return False
            if claimed.run_under_way is not None:
                seen.add(claimed.run_under_way)
                if claimed.run_under_way == gap.run_id:
                    return True
            if may_interrupt(seen, claimed.run_under_way):
                return True
            await happens(gap.has_begun, within_seconds=_LOOK_SECONDS)
            gap.has_begun.clear()
        return False

    @asynccontextmanager
    async def _lease(self, job: UpkeepJob, table: Qualified | None, interval_seconds: float = 0) -> AsyncIterator[bool]:
        """Have a job for the length of the block, if it is to be had."""
        claimed = await self._claim(job, table, interval_seconds)
        if not claimed.is_granted:
            yield False
            return

        async def renew() -> None:
            await asyncio.sleep(_LEASE_SECONDS / 3)
            await every(_LEASE_SECONDS / 3, lambda: self._renewed(job, table))

        end = EndUpkeep(job=job, table=_text(table), holder=self.holder)
        try:
            async with background(renew):
                yield True
        except BaseException:
            end = end.model_copy(update={"is_done": False})
            raise
        finally:
            await self.resources.bus.ask(end)

    async def _renewed(self, job: UpkeepJob, table: Qualified | None) -> None:
        await self._claim(job, table)

    async def _claim(self, job: UpkeepJob, table: Qualified | None, interval_seconds: float = 0) -> UpkeepClaimed:
        return await self.resources.bus.ask(
            ClaimUpkeep(
                job=job,
                table=_text(table),
                holder=self.holder,
                lease_seconds=_LEASE_SECONDS,
                interval_seconds=interval_seconds,
            )
        )


def _text(table: Qualified | None) -> str | None:
    return None if table is None else str(table)
