"""A run that this runner holds: claimed attempt by attempt, kept alive, ended, acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter

import structlog

from contracts.runs import (
    Attempt,
    AttemptFinished,
    ClaimReason,
    ClaimRun,
    EndRun,
    LogLine,
    Over,
    RunProgressed,
    RunQueued,
    Superseded,
)
from services.runner import domain
from services.runner.attempt import AttemptWork
from services.runner.domain import ClaimAgain, Forget, OrderedEnd, Patience, Stop
from services.runner.ending import UNREACHABLE, end_as_ordered, patiently
from services.runner.journal import journal
from services.runner.resources import Resources
from shared.background import end, happens
from shared.errors import RatError
from shared.leases import Lease

log = structlog.get_logger()


@dataclass(eq=False)
class HeldRun:
    """One `run.queued` in the hands of this runner, until it is acknowledged, given back or let go."""

    resources: Resources
    lease: Lease
    queued: RunQueued
    runner: str
    """What tells this runner from any other one."""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    _patience: Patience = field(default_factory=Patience)
    _claims: int = 0
    _attempt: int | None = None
    _lines: list[LogLine] = field(default_factory=list)
    _answered: frozenset[int] = frozenset()
    """Attempts that were worked on here and whose merge was answered, or never sent."""

    async def carry_out(self) -> None:
        """Claim and work until the run ends, or somebody else has it."""
        async with self._kept_alive():
            reason, follows = ClaimReason.DELIVERY, None
            while True:
                answer = await self._claim(reason, follows)
                match domain.after_claim(answer):
                    case Stop():
                        return
                    case Forget():
                        await self.lease.acknowledge()
                        return
                    case OrderedEnd(order):
                        self._attempt = order.attempt
                        await self._say(await self._end(order))
                        return
                assert isinstance(answer, Attempt), "all else was dealt with"
                self._attempt = answer.attempt
                match await self._work(answer):
                    case ClaimAgain(reason, pause):
                        follows = answer.attempt
                        await self._pause(pause)
                    case _:
                        return

    async def _work(self, attempt: Attempt) -> ClaimAgain | None:
        """Work on an attempt to its end; None if it was the run's, too, or nothing is to be done about it."""
        async with journal(self.resources.bus, attempt.run_id, attempt.attempt, self._lines) as telling:
            work = AttemptWork(self.resources, attempt, telling, self.cancelled, self._patience, self._answered)
            ended = await work.carry_out()
            self._patience, self._lines = work.patience_left, telling.lines
            self._answered = work.answered_with_this
            match ended:
                case AttemptFinished():
                    await telling.told()
                    await self._say(ended)
                case ClaimAgain():
                    return ended
        return None

    async def _claim(self, reason: ClaimReason, follows: int | None) -> Attempt | EndRun | Over | Superseded:
        """Ask catalog until it answers; the question stays the same, and so does its answer."""
        self._claims += 1
        delivery = f"{self.runner}:{self.lease.delivery}:{self._claims}"
        outages = 0
        while True:
            try:
                query = ClaimRun(
                    run_id=self.queued.run_id,
                    queue_number=self.queued.queue_number,
                    delivery=delivery,
                    reason=reason,
                    follows=follows,
                    head=await self.resources.lakehouse.head(),
                )
                return (await self.resources.bus.ask(query)).claim
            except UNREACHABLE as error:
                log.warning("claim waits", run_id=str(self.queued.run_id), error=str(error))
            # A service that restarts is back within a second.
            await asyncio.sleep(min(domain.outage_pause(outages) / 10, 10))
            outages += 1

    async def _end(self, order: EndRun) -> AttemptFinished:
        return await end_as_ordered(self.resources.lakehouse, self.resources.objects, order, self._answered)

    async def _say(self, ended: AttemptFinished) -> None:
        """Say how the run ended; its message is acknowledged once that is stored."""
        await patiently("attempt.finished", lambda: self.resources.bus.publish(ended))
        await self.lease.acknowledge()
        log.info("run ended", run_id=str(ended.run_id), attempt=ended.attempt, status=ended.status)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next claim, but no longer than until the run is cancelled."""
        await happens(self.cancelled, within_seconds=seconds)

    @asynccontextmanager
    async def _kept_alive(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._keep_alive())
        try:
            yield
        finally:
            await end({task})

    async def _keep_alive(self) -> None:
        """Renew the lease, and tell catalog that the attempt goes on."""
        settings = self.resources.settings
        told_at = perf_counter()
        while True:
            await asyncio.sleep(min(settings.run_lease_seconds / 3, settings.run_heartbeat_seconds))
            await self.lease.renew()
            if self._attempt and perf_counter() - told_at >= settings.run_heartbeat_seconds:
                told_at = perf_counter()
                with suppress(RatError):
                    await self.resources.bus.publish(RunProgressed(run_id=self.queued.run_id, attempt=self._attempt))
