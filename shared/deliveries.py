"""What becomes of a message after its handler: how it is acknowledged is decided here, and nowhere else.

- Handled: acknowledged, and the server's confirmation awaited.
- `Unavailable`, `Conflict`, lost connections: given back with a growing delay, for as long as it takes.
- Cannot be understood, or refused for good: to the dead-letter stream with its reason, then ended.
- A fault of ours: given back a few times, then to the dead-letter stream.

A query is answered, with its error if need be.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

import nats.errors
import nats.js.errors
import structlog
from faststream import BaseMiddleware
from faststream.nats.message import NatsMessage
from faststream.nats.parser import JsParser
from nats.aio.msg import Msg

from contracts.messages import Event
from shared.answers import answered
from shared.errors import RatError, Unavailable
from shared.events import decode_event, is_delivery
from shared.failures import NOT_UNDERSTOOD, TRANSIENT, reason, retry_delay
from shared.logs import correlation_id

log = structlog.get_logger()

E = TypeVar("E", bound=Event)

ACK_WAIT_SECONDS: Final = 30.0
"""How long a delivery is left to the service that has it, unless it says that it still works on it."""

Bury: TypeAlias = Callable[[NatsMessage, str], Awaitable[None]]
"""Makes a message a dead letter, and says why; `Unavailable` where that cannot be stored."""


class Delivery(BaseMiddleware[Any, Msg]):
    """One message on its way to its handler and back."""

    def __init__(
        self, message: Any, /, *, context: Any, service: str, taken: Collection[str], tries: int, bury: Bury
    ) -> None:
        """Know the service, the subjects that takers hold beyond one call, and when a fault of ours is given up."""
        super().__init__(message, context=context)
        self._service = service
        self._taken = taken
        self._tries = tries
        self._bury = bury

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
        """Call the handler, then acknowledge, give back, bury, or answer."""
        if msg.raw_message.subject in self._taken:
            return await call_next(msg)
        token = correlation_id.set(msg.correlation_id)
        try:
            if is_delivery(msg):
                return await self._deliver(call_next, msg)
            return await answered(call_next, msg)
        finally:
            correlation_id.reset(token)

    async def _deliver(self, call_next: Callable[[Any], Awaitable[Any]], message: NatsMessage) -> None:
        renewal = asyncio.create_task(_renew(message))
        try:
            await call_next(message)
            with suppress(nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError):
                await message.ack_sync()
        except TRANSIENT as error:
            log.warning("delayed", subject=message.raw_message.subject, service=self._service, error=repr(error))
            await _give_back(message)
        except (RatError, *NOT_UNDERSTOOD) as error:
            await self._bury_or_give_back(message, reason(error))
        except Exception as error:
            log.exception("handler failed", subject=message.raw_message.subject, service=self._service)
            if message.raw_message.metadata.num_delivered >= self._tries:
                await self._bury_or_give_back(message, repr(error))
            else:
                await _give_back(message)
        finally:
            renewal.cancel()

    async def _bury_or_give_back(self, message: NatsMessage, why: str) -> None:
        try:
            await self._bury(message, why)
        except Unavailable:
            await _give_back(message)


def straight_to(
    handler: Callable[[E], Awaitable[None]],
    event: type[E],
    *,
    subscriber: Any,
    delivery: Callable[[Msg], BaseMiddleware[Any, Any]],
) -> Callable[[Msg], Awaitable[None]]:
    """The way of a message from its subscriber, through its delivery, to the handler of its event.

    FastStream's own way, which it would take otherwise, is one for handlers of any kind, with whatever parameters: it
    takes as long as most handlers here.
    """
    parser = JsParser(pattern=event.subject)

    async def call(message: Any) -> None:
        await handler(event.model_validate(await decode_event(message)))

    async def consume(raw: Msg) -> None:
        if not subscriber.running:
            return
        # What holds the lock is waited for when the subscriber stops.
        with subscriber.lock:
            try:
                await delivery(raw).consume_scope(call, await parser.parse_message(raw))
            except Exception:
                # It comes again once its time is over.
                log.exception("delivery failed", subject=raw.subject)

    return consume


async def _give_back(message: NatsMessage) -> None:
    with suppress(nats.errors.Error, OSError):
        await message.nack(delay=retry_delay(message.raw_message.metadata.num_delivered))


async def _renew(message: NatsMessage) -> None:
    """Keep a message from being delivered again while its handler works."""
    while True:
        await asyncio.sleep(ACK_WAIT_SECONDS / 3)
        with suppress(nats.errors.Error, OSError):
            await message.in_progress()
