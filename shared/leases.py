"""Messages that a service takes when it has room for them, and holds for longer than one call of a handler."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors
from faststream.nats.message import NatsMessage
from pydantic import ValidationError

from contracts.messages import Event
from shared.deliveries import Bury
from shared.events import decode_event
from shared.failures import reason


@dataclass(frozen=True)
class Lease:
    """A message that its taker holds until it acknowledges it or gives it back, beyond one handler's call."""

    event: Event
    message: NatsMessage

    @property
    def delivery(self) -> str:
        """What tells this delivery from any other one."""
        metadata = self.message.raw_message.metadata
        return f"{metadata.stream}:{metadata.sequence.stream}:{metadata.num_delivered}"

    async def renew(self) -> None:
        """Say that work goes on, before the lease runs out; a lost connection is no reason to stop."""
        with suppress(nats.errors.Error, OSError):
            await self.message.in_progress()

    async def acknowledge(self) -> None:
        """Say that the work is done and stored; if that is lost, the message comes again."""
        with suppress(nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError, OSError):
            await self.message.ack_sync()

    async def give_back(self, delay_seconds: float) -> None:
        """Let another taker have it after a while."""
        with suppress(nats.errors.Error, OSError):
            await self.message.nack(delay=delay_seconds)


class Taker:
    """Takes one message at a time, when its owner has room for it."""

    def __init__(self, subscriber: Any, event: type[Event], bury: Bury) -> None:
        self._subscriber = subscriber
        self._event = event
        self._bury = bury

    async def take(self) -> Lease:
        """Wait for the next message; one that cannot be understood becomes a dead letter on the way."""
        while True:
            try:
                message = await self._subscriber.get_one(timeout=5)
            except (nats.errors.Error, nats.js.errors.Error, OSError):
                await asyncio.sleep(0.2)
                continue
            if message is None:
                continue
            try:
                return Lease(self._event.model_validate(await decode_event(message)), message)
            except ValidationError as error:
                await self._bury(message, reason(error))
