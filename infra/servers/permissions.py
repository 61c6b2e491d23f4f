"""What each user of NATS may publish and subscribe, made from what the services declare, so that neither can drift.

`permissions.json` beside this module is written by `make docs`: importing all services takes seconds, which a server
that starts does not have. A user that may not do something learns it by an error on its connection; whoever waits
for an answer gets none.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from contracts.messages import Query
from shared.bus import QUERY_TIMEOUT_SECONDS, Bus
from shared.chunks import ANSWER_SECONDS, chunks_prefix
from shared.pulling import durable_name, inbox_prefix
from shared.streams import DEAD_PREFIX, EVENT_SUBJECTS, STREAMS, stream_of

FILE: Final = Path(__file__).with_name("permissions.json")

OPERATOR: Final = "gateway"
"""The service through which an operator looks at consumers, and at dead letters to replay them."""
READABLE: Final = ("EVENTS", "OUTSIDE")
"""Streams that `subscriber` may read."""

_API: Final = "$JS.API"
_INBOXES: Final = "_INBOX.>"
"""Where a client listens that was not told a prefix of its own."""


class Subjects(BaseModel, frozen=True):
    """The subjects that are allowed, without those that are denied."""

    allow: tuple[str, ...]
    deny: tuple[str, ...] = ()


class Responses(BaseModel, frozen=True):
    """How often, and for how long, somebody may answer on the subject that a message named for its answer."""

    max: int
    expires: str


class Permissions(BaseModel, frozen=True):
    """What one user may do, in the words of NATS' configuration."""

    publish: Subjects
    subscribe: Subjects
    allow_responses: Responses | None = None

    def configuration(self) -> dict[str, Any]:
        """The `permissions` of a user in the configuration of a NATS server."""
        return self.model_dump(exclude_defaults=True)


@cache
def permissions() -> Mapping[str, Permissions]:
    """Each user's name with what it may do, as it was written down."""
    return {user: Permissions.model_validate(rules) for user, rules in json.loads(FILE.read_text()).items()}


def render(permissions: Mapping[str, Permissions]) -> str:
    """Permissions as they stand in their file."""
    plain = {user: rules.model_dump(exclude_defaults=True) for user, rules in permissions.items()}
    return json.dumps(plain, indent=2) + "\n"


def declared_permissions(buses: Mapping[str, Bus]) -> dict[str, Permissions]:
    """What each user may do; `buses` are the services' names with what they declare."""
    durables = [durable for bus in buses.values() for durable in _durables(bus)]
    everything = Permissions(publish=Subjects(allow=(">",)), subscribe=Subjects(allow=(">",)))
    return {
        **{name: _service(bus, buses, durables) for name, bus in buses.items()},
        "infra": everything,
        "object_store": _object_store(),
        "publisher": _publisher(),
        "subscriber": _subscriber(durables),
    }


def _service(bus: Bus, buses: Mapping[str, Bus], durables: Iterable[tuple[str, str]]) -> Permissions:
    publish = [
        *(event.subject for event in bus.said),
        *(subject for query in bus.asked for subject in _addresses(query, buses)),
        *(f"{DEAD_PREFIX}{bus.service}.{event.subject}" for event in bus.heard if event.stored),
        *(request for event in bus.heard if event.stored for request in _hearing(bus.service, event.subject)),
        *_chunk_inboxes(bus, buses),
        *(request for stream in bus.read for request in _looking(stream)),
    ]
    if bus.service == OPERATOR:
        publish += _operating(buses)
    subscribe = [
        *(event.subject for event in bus.heard if not event.stored),
        *(query.subject for query in bus.answered),
        f"{bus.service}.health",
        f"{inbox_prefix(bus.service)}.>",
    ]
    return Permissions(
        publish=Subjects(allow=_sorted(publish), deny=_sorted(_others(bus.read, durables))),
        subscribe=Subjects(allow=_sorted(subscribe)),
        allow_responses=Responses(max=1, expires=f"{_answering_seconds(bus):.0f}s"),
    )


def _object_store() -> Permissions:
    return Permissions(publish=Subjects(allow=("bucket.events",)), subscribe=Subjects(allow=(_INBOXES,)))


def _publisher() -> Permissions:
    return Permissions(
        publish=Subjects(allow=("run.requested", "event.>")),
        # Where JetStream's acknowledgement arrives.
        subscribe=Subjects(allow=(_INBOXES,)),
    )


def _subscriber(durables: Iterable[tuple[str, str]]) -> Permissions:
    requests = [request for stream in READABLE for request in (*_looking(stream), *_keeping_a_place(stream))]
    return Permissions(
        publish=Subjects(
            allow=_sorted([f"{_API}.INFO", f"{_API}.STREAM.NAMES", *requests]),
            deny=_sorted(_others(READABLE, durables)),
        ),
        subscribe=Subjects(allow=_sorted([*EVENT_SUBJECTS, "event.>", _INBOXES, f"{inbox_prefix('subscriber')}.>"])),
    )


def _durables(bus: Bus) -> Iterator[tuple[str, str]]:
    """Stream and name of the consumers of a service."""
    for event in bus.heard:
        if event.stored:
            yield stream_of(event.subject), durable_name(bus.service, event.subject)


def _addresses(query: type[Query[Any]], buses: Mapping[str, Bus]) -> list[str]:
    """The subjects that a query is asked on: that of every service where any of them answers it."""
    if query.subject.startswith("*."):
        return [f"{service}{query.subject.removeprefix('*')}" for service in buses]
    return [query.subject]


def _hearing(service: str, subject: str) -> list[str]:
    """What it takes to hear an event by a durable consumer of one's own: to make it, to pull, to acknowledge."""
    stream, durable = stream_of(subject), durable_name(service, subject)
    return [
        # With the subject in it, it can be made for that subject only.
        f"{_API}.CONSUMER.CREATE.{stream}.{durable}.{subject}",
        f"{_API}.CONSUMER.INFO.{stream}.{durable}",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.{durable}",
        f"$JS.ACK.{stream}.{durable}.>",
    ]


def _looking(stream: str) -> list[str]:
    """What it takes to read a stream by a consumer of any name.

    Not `CONSUMER.CREATE.<stream>`, by which old clients let the server choose the name: with a name in its body that
    request changes the consumer of that name, whose ever it is.
    """
    return [
        f"{_API}.STREAM.INFO.{stream}",
        f"{_API}.CONSUMER.CREATE.{stream}.>",
        f"{_API}.CONSUMER.INFO.{stream}.*",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{_API}.CONSUMER.DELETE.{stream}.*",
    ]


def _keeping_a_place(stream: str) -> list[str]:
    """What it takes besides to keep one's place in a stream: a durable consumer, and acknowledgements."""
    return [f"{_API}.CONSUMER.DURABLE.CREATE.{stream}.*", f"$JS.ACK.{stream}.>"]


def _others(streams: Iterable[str], durables: Iterable[tuple[str, str]]) -> list[str]:
    """What those who read streams may not do all the same: touch the consumers of the services."""
    touched = set(streams)
    return [
        denied
        for stream, durable in durables
        if stream in touched
        for denied in (
            f"{_API}.CONSUMER.CREATE.{stream}.{durable}",
            f"{_API}.CONSUMER.CREATE.{stream}.{durable}.>",
            f"{_API}.CONSUMER.DURABLE.CREATE.{stream}.{durable}",
            f"{_API}.CONSUMER.MSG.NEXT.{stream}.{durable}",
            f"{_API}.CONSUMER.DELETE.{stream}.{durable}",
            f"$JS.ACK.{stream}.{durable}.>",
        )
    ]


def _operating(buses: Mapping[str, Bus]) -> list[str]:
    """What it takes to see how far all are, and to list, show and replay dead letters on their own subjects."""
    return [
        *(f"{_API}.CONSUMER.LIST.{stream.name}" for stream in STREAMS),
        *(f"{_API}.STREAM.{request}.DEAD" for request in ("INFO", "MSG.GET", "MSG.DELETE")),
        *(event.subject for bus in buses.values() for event in bus.heard if event.stored),
    ]


def _chunk_inboxes(bus: Bus, buses: Mapping[str, Bus]) -> list[str]:
    """Where a service sends the chunks of its answers: to those who ask it a query that names an inbox."""
    return [
        f"{chunks_prefix(asker.service)}.*"
        for asker in buses.values()
        if any(_is_chunked(query) for query in asker.asked & bus.answered.keys())
    ]


def _answering_seconds(bus: Bus) -> float:
    """How long the service may take to answer: whoever asked is gone by then, but for an answer in chunks."""
    return ANSWER_SECONDS if any(map(_is_chunked, bus.answered)) else 2 * QUERY_TIMEOUT_SECONDS


def _is_chunked(query: type[Query[Any]]) -> bool:
    return "inbox" in query.model_fields


def _sorted(subjects: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(subjects)))
