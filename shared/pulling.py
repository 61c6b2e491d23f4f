"""The durable consumers of a service, which it pulls its events from, a place of its own in each stream."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import nats.errors
import nats.js.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from contracts.messages import Event
from shared.events import decode_event
from shared.streams import stream_of

log = structlog.get_logger()

_PAUSE_SECONDS: Final = 0.2
"""How long a pull waits that nobody answers, as there is no consumer, or none that has a leader."""


class Pulling:
    """Those of one service: declared first, made before anything is pulled, and made again where they are deleted."""

    def __init__(self, broker: NatsBroker, service: str) -> None:
        self._broker = broker
        self._service = service
        self._consumers: list[tuple[str, ConsumerConfig]] = []
        """Stream and consumer of each event."""
        self._subscribers: list[Any] = []

    def subscriber(self, event: type[Event], ack_wait_seconds: float, **options: Any) -> Any:
        """Declare a consumer of these events; a delivery comes again that is not acknowledged for so long."""
        durable, stream = durable_name(self._service, event.subject), stream_of(event.subject)
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=event.subject,
            ack_wait=ack_wait_seconds,
            max_ack_pending=1000,
            max_deliver=-1,
        )
        self._consumers.append((stream, config))
        subscriber = self._broker.subscriber(
            event.subject,
            stream=JStream(stream, declare=False),
            durable=durable,
            # Not the connection's, unless it is said: where everybody may listen, the outside publisher too.
            inbox_prefix=f"{inbox_prefix(self._service)}.".encode(),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            config=config,
            ack_policy=AckPolicy.MANUAL,
            decoder=decode_event,
            **options,
        )
        self._subscribers.append(subscriber)
        return subscriber

    async def make(self, jetstream: JetStreamContext) -> None:
        """Make the consumers as they are declared now: one of an earlier start may have had another lease."""
        for stream, config in self._consumers:
            await jetstream.add_consumer(stream, config)

    async def keep(self, jetstream: JetStreamContext) -> None:
        """Make consumers again that somebody deleted, alone or with their stream."""
        for stream, config in self._consumers:
            # Its stream may not be there again yet, or NATS not.
            with suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                await self._ensure(jetstream, stream, config)

    def be_patient(self) -> None:
        """Let no subscriber pull without a pause where nobody answers, which FastStream's would do."""
        for subscriber in self._subscribers:
            if subscriber.subscription is not None:
                subscriber.subscription.fetch = _patient(subscriber.subscription.fetch)

    async def _ensure(self, jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
        try:
            await jetstream.consumer_info(stream, str(config.durable_name))
        except nats.js.errors.NotFoundError:
            await jetstream.add_consumer(stream, config)
            log.warning("a consumer was gone", service=self._service, stream=stream, consumer=config.durable_name)


def durable_name(service: str, subject: str) -> str:
    """How the durable consumer is called by which a service hears a subject."""
    return f"{service}-{subject.replace('.', '-').replace('*', 'any').replace('>', 'all')}"


def inbox_prefix(user: str) -> str:
    """What the inboxes of a user begin with, so that nobody else may listen there."""
    return f"_INBOX_{user}"


def _patient(fetch: Callable[..., Awaitable[list[Msg]]]) -> Callable[..., Awaitable[list[Msg]]]:
    async def fetch_patiently(*arguments: Any, **options: Any) -> list[Msg]:
        try:
            return await fetch(*arguments, **options)
        except nats.js.errors.APIError:
            await asyncio.sleep(_PAUSE_SECONDS)
            raise

    return fetch_patiently
