"""Hearing many events at a time: what has come while the last batch was handled is the next batch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Final, Generic, TypeVar

import structlog
from pydantic import ValidationError

from contracts.messages import Event
from shared.background import end
from shared.bus import Bus
from shared.errors import RatError, Unavailable
from shared.failures import TRANSIENT, reason, retry_delay
from shared.leases import Lease, Taker
from shared.logs import correlation_id

log = structlog.get_logger()

E = TypeVar("E", bound=Event)

_MOST: Final = 200
"""Events of one batch, and events that are taken ahead of it."""


class Batches(Generic[E]):
    """Events that are taken ahead and handled as many at a time as there are; acknowledged as `shared.deliveries` says.

    A batch that fails for good is handled again event by event, so that one which nobody can handle becomes a dead
    letter by itself. `lease_seconds` is how long the taker's leases last.
    """

    def __init__(
        self,
        bus: Bus,
        event: type[E],
        handle: Callable[[Sequence[E]], Awaitable[None]],
        *,
        lease_seconds: float,
    ) -> None:
        self._bus = bus
        self._event = event
        self._handle = handle
        self._lease_seconds = lease_seconds
        self._held: list[Lease] = []
        """What was taken and not answered yet, in the order in which it came."""
        self._has_come = asyncio.Event()
        self._has_room = asyncio.Event()

    async def run(self, taker: Taker) -> None:
        """Take and handle until cancelled; what is held then is given back."""
        tasks = {asyncio.create_task(work) for work in (self._take_ahead(taker), self._renew(), self._handle_all())}
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await end(tasks)
            await asyncio.gather(*(lease.give_back(0) for lease in self._held))
            self._held.clear()

    async def _take_ahead(self, taker: Taker) -> None:
        while True:
            while len(self._held) >= 2 * _MOST:
                self._has_room.clear()
                await self._has_room.wait()
            lease = await taker.take()
            self._held.append(lease)
            self._has_come.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await asyncio.gather(*(lease.renew() for lease in self._held))

    async def _handle_all(self) -> None:
        while True:
            while not self._held:
                self._has_come.clear()
                await self._has_come.wait()
            # What follows from an event carries on the id of the request behind it, so a batch is of one request,
            # or of events behind which there is none.
            request, first = next(groupby(self._held[:_MOST], key=_request_of))
            batch = list(first)
            token = correlation_id.set(request)
            try:
                await self._deliver(batch)
            finally:
                correlation_id.reset(token)
            del self._held[: len(batch)]
            self._has_room.set()

    async def _deliver(self, batch: Sequence[Lease]) -> None:
        try:
            await self._handle([self._event.model_validate(lease.event) for lease in batch])
        except TRANSIENT as error:
            log.warning("delayed", subject=self._event.subject, service=self._bus.service, error=repr(error))
            await asyncio.gather(*(_give_back(lease) for lease in batch))
        except Exception as error:
            if len(batch) == 1:
                await self._refuse(batch[0], error)
                return
            for lease in batch:
                await self._deliver([lease])
        else:
            await asyncio.gather(*(lease.acknowledge() for lease in batch))

    async def _refuse(self, lease: Lease, error: Exception) -> None:
        is_final = isinstance(error, RatError | ValidationError)
        if not is_final:
            log.error("handler failed", subject=self._event.subject, service=self._bus.service, exc_info=error)
        if not is_final and _deliveries(lease) < self._bus.fault_deliveries:
            await _give_back(lease)
            return
        try:
            await self._bus.bury(lease.message, reason(error))
        except Unavailable:
            await _give_back(lease)


def _request_of(lease: Lease) -> str | None:
    given = (lease.message.raw_message.headers or {}).get("correlation_id")
    return None if given is None else str(given)


def _deliveries(lease: Lease) -> int:
    return int(lease.message.raw_message.metadata.num_delivered)


async def _give_back(lease: Lease) -> None:
    await lease.give_back(retry_delay(_deliveries(lease)))
