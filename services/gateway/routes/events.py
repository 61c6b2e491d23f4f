"""What happens on the platform, as it happens."""

import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from litestar import Response, get
from litestar.params import FromQuery, HeaderParameter
from nats.js.api import ConsumerConfig

from services.gateway.dependencies import Asker, Closing
from services.gateway.sse import COMMENT, HEARTBEAT_SECONDS, event_stream, read, sse
from services.gateway.tail import after, from_now, tail
from shared.bus import Bus
from shared.errors import Invalid
from shared.streams import EVENT_SUBJECTS

SHOWN: Final = tuple(subject for subject in EVENT_SUBJECTS if subject not in ("attempt.finished", "audit.recorded"))
"""What the stream shows: not what only catalog is to hear, nor who did what."""

_ID: Final = re.compile(r"[0-9]{1,18}")

LastEventId = Annotated[
    str, HeaderParameter(name="Last-Event-ID", description="The id of the last event that was seen")
]


@get("/events", tags=["Events"])
async def read_events(
    bus: Asker,
    closing: Closing,
    types: FromQuery[str] = "",
    namespace: FromQuery[str | None] = None,
    last_event_id: LastEventId = "",
) -> Response[Any]:
    """Follow what happens, as server-sent events; `types` is a list with commas."""
    wanted = [name.strip() for name in types.split(",") if name.strip()] or list(SHOWN)
    if unknown := sorted(set(wanted) - set(SHOWN)):
        raise Invalid(f"types: no event is called {', '.join(unknown)}; there are {', '.join(SHOWN)}")
    start = after(int(last_event_id)) if _ID.fullmatch(last_event_id) else from_now()
    return event_stream(_events(bus, wanted, namespace, start), closing)


async def _events(
    bus: Bus, subjects: list[str], namespace: str | None, start: ConsumerConfig
) -> AsyncGenerator[bytes, None]:
    async with tail(bus, "EVENTS", subjects, start) as reader:
        # Tells the client that events from here on will reach it.
        yield COMMENT
        while True:
            message = await reader.next(HEARTBEAT_SECONDS)
            if message is None:
                yield COMMENT
                continue
            body = read(message)
            if namespace is None or namespace == _namespace(body):
                yield sse(message.subject, body, str(message.metadata.sequence.stream))


def _namespace(body: dict[str, Any]) -> str | None:
    """Where an event belongs: what it says, else the pipeline's."""
    named = body.get("namespace") or str(body.get("pipeline", "")).partition(".")[0]
    return named or None
