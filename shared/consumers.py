"""How far the services are with the events that they hear."""

from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from shared.errors import Unavailable
from shared.streams import STREAMS


@dataclass(frozen=True)
class Consumer:
    """One durable consumer of a stream: a service, and an event that it hears."""

    stream: str
    consumer: str
    subject: str
    pending: int
    """Messages that were not delivered yet: the lag."""
    ack_pending: int
    """Messages that were delivered and are being worked on."""
    redelivered: int
    """Those of them that were delivered before."""


async def consumers(jetstream: JetStreamContext) -> list[Consumer]:
    """All durable consumers, by stream and name; `Unavailable` if NATS does not say."""
    try:
        found = [consumer for stream in STREAMS for consumer in await _consumers_of(jetstream, str(stream.name))]
    except (TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise Unavailable(f"the consumers cannot be reached: {error!r}") from error
    return sorted(found, key=lambda consumer: (consumer.stream, consumer.consumer))


async def _consumers_of(jetstream: JetStreamContext, stream: str) -> list[Consumer]:
    infos: list[ConsumerInfo] = []
    while page := await jetstream.consumers_info(stream, offset=len(infos)):
        infos += page
    return [
        Consumer(
            stream=stream,
            consumer=info.name,
            subject=info.config.filter_subject or "",
            pending=info.num_pending or 0,
            ack_pending=info.num_ack_pending or 0,
            redelivered=info.num_redelivered or 0,
        )
        for info in infos
        if info.config.durable_name
    ]
