"""Waiting until a service has heard what was said: other subjects than one are not heard in the order of saying."""

from contracts.messages import Event
from shared.settings import Settings
from shared.streams import stream_of
from tests.outside import nats_client
from tests.waiting import eventually


async def heard_all(settings: Settings, service: str, event: type[Event]) -> None:
    """Wait until a service has heard, and dealt with, all events of a kind that were said until now."""
    stream, consumer = stream_of(event.subject), f"{service}-{event.subject.replace('.', '-')}"
    client = await nats_client(settings)
    try:
        jetstream = client.jetstream()
        newest = (await jetstream.get_last_msg(stream, event.subject)).seq or 0

        async def dealt_with() -> bool:
            known = (await jetstream.consumer_info(stream, consumer)).ack_floor
            return known is not None and known.stream_seq >= newest

        # A message whose acknowledgement was lost with a server comes again when its lease has run out.
        await eventually(dealt_with, within=60)
    finally:
        await client.close()
