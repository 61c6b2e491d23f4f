"""Runners ask here before they look after the lakehouse: each job is one runner's at a time."""

from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from contracts.maintenance import ClaimUpkeep, EndUpkeep, UpkeepClaimed
from services.catalog.upkeep import store
from shared.bus import Bus


@dataclass(frozen=True, repr=False)
class UpkeepService:
    """Who looks after what."""

    db: asyncpg.Pool

    async def claim_upkeep(self, query: ClaimUpkeep) -> UpkeepClaimed:
        """Give a job to a runner, or say that it is not to be done now."""
        is_granted = await store.claim(
            self.db,
            query.job,
            query.table or "",
            query.holder,
            lease=timedelta(seconds=query.lease_seconds),
            interval=timedelta(seconds=query.interval_seconds),
        )
        under_way = None if query.table is None else await store.run_under_way(self.db, query.table)
        return UpkeepClaimed(is_granted=is_granted, run_under_way=under_way)

    async def end_upkeep(self, query: EndUpkeep) -> None:
        """Take a job back."""
        end = store.end_done if query.is_done else store.end_undone
        await end(self.db, query.job, query.table or "", query.holder)


def wire(bus: Bus, upkeep: UpkeepService) -> None:
    """Register what catalog answers about upkeep."""
    bus.answer(ClaimUpkeep, upkeep.claim_upkeep)
    bus.answer(EndUpkeep, upkeep.end_upkeep)
