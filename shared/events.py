"""An event as a message on the bus, and back."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contracts.messages import Event, derived_id
from shared.errors import Invalid
from shared.logs import correlation_id

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""No message is larger (`system.md`, Events): lists are answered in pages, reports lie in S3."""


def event_headers(event: Event) -> dict[str, str]:
    """The headers of an event: JetStream's duplicate key and CloudEvents 1.0 (binary mode, without the source)."""
    headers = {
        "Nats-Msg-Id": str(event.event_id),
        "ce-specversion": "1.0",
        "ce-id": str(event.event_id),
        "ce-type": event.subject,
        "ce-time": event.occurred_at.isoformat(),
        "content-type": "application/json",
    }
    if (current := correlation_id.get()) is not None:
        headers["correlation_id"] = current
    return headers


def event_body(event: Event) -> bytes:
    """The event as JSON; `Invalid` if it is larger than a message may be."""
    body = event.model_dump_json(by_alias=True).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise Invalid(f"{event.subject} of {len(body)} bytes is larger than a message may be ({MAX_MESSAGE_BYTES})")
    return body


async def decode_event(message: Any, _original: Any = None) -> Any:
    """The JSON of an event; an outsider's event that has no id or time gets the message's own.

    What is no JSON object is handed on as it is, for the model to refuse it by name.
    """
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError):
        return message.body.decode(errors="replace")
    if not isinstance(body, dict):
        return body
    if not body.get("event_id"):
        body["event_id"] = str(event_id(message))
    if not body.get("occurred_at"):
        body["occurred_at"] = _stored_at(message)
    return body


def event_id(message: Any) -> UUID:
    """What an event is called that does not say its id: by header, else by its place in the stream."""
    headers: Mapping[str, object] = message.raw_message.headers or {}
    for name in ("ce-id", "Nats-Msg-Id"):
        if name in headers:
            given = str(headers[name])
            try:
                return UUID(given)
            except ValueError:
                return derived_id(name, given)
    if is_delivery(message):
        metadata = message.raw_message.metadata
        return derived_id(metadata.stream, metadata.sequence.stream)
    return derived_id(message.raw_message.subject, message.body)


def is_delivery(message: Any) -> bool:
    """Whether JetStream delivers the message and waits for its acknowledgement."""
    reply: str = message.raw_message.reply
    return reply.startswith("$JS.ACK")


def _stored_at(message: Any) -> str | None:
    if not is_delivery(message):
        return None
    stored: datetime = message.raw_message.metadata.timestamp
    return stored.isoformat()
