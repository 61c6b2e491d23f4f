"""Dead letters: the messages that a service could not handle, as `shared/bus.py` buries them, listed and replayed."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from contracts.messages import derived_id
from shared.errors import NotFound, Unavailable
from shared.headers import from_header
from shared.streams import DEAD_PREFIX

_STREAM: Final = "DEAD"
_NOTHING_DELETED: Final = (10057, 10043)
"""JetStream's codes for a message that cannot be deleted, and for one that is not there."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that a service gave up on, and why."""

    id: int
    """Its place in the stream of dead letters."""
    subject: str
    """Where it was published."""
    service: str
    """Who could not handle it."""
    reason: str
    deliveries: int
    """How often it was tried."""
    event_id: str
    died_at: datetime
    headers: Mapping[str, str]
    """Its own, without those that say how it died."""
    body: bytes


async def count_dead_letters(jetstream: JetStreamContext) -> int:
    """How many there are; `Unavailable` if NATS does not say."""
    with _errors():
        return (await jetstream.stream_info(_STREAM)).state.messages


async def dead_letters(jetstream: JetStreamContext, *, first: int = 1) -> AsyncIterator[DeadLetter]:
    """Read them in the order in which they died, from this id on."""
    with _errors():
        while True:
            try:
                message = await jetstream.get_msg(_STREAM, seq=first, subject=f"{DEAD_PREFIX}>", next=True)
            except nats.js.errors.NotFoundError:
                return
            letter = _letter(message)
            yield letter
            first = letter.id + 1


async def find_dead_letter(jetstream: JetStreamContext, letter_id: int) -> DeadLetter:
    """Read one; `NotFound` if there is none of that id."""
    with _errors():
        try:
            return _letter(await jetstream.get_msg(_STREAM, seq=letter_id))
        except nats.js.errors.NotFoundError as error:
            raise NotFound(f"no dead letter {letter_id}") from error


async def replay_dead_letter(jetstream: JetStreamContext, letter_id: int) -> DeadLetter:
    """Publish one again on its own subject, under its own `ce-id`, and take it off the dead letters.

    Whoever hears the subject hears it again; that is boring for those who handled it. `NotFound` if there is none of
    that id.
    """
    letter = await find_dead_letter(jetstream, letter_id)
    # Not its first one, which JetStream may remember and drop; the same one, if a crash cuts this in two.
    headers = {**letter.headers, "Nats-Msg-Id": str(derived_id("replay", letter.id, letter.died_at.isoformat()))}
    with _errors():
        try:
            await jetstream.publish(letter.subject, letter.body, headers=headers)
        except nats.js.errors.APIError as error:
            # A cluster refuses what another replay is publishing at this moment, and that one takes it off.
            if error.code != HTTPStatus.CONFLICT:
                raise
            return letter
        await _delete(jetstream, letter.id)
    return letter


async def _delete(jetstream: JetStreamContext, letter_id: int) -> None:
    try:
        await jetstream.delete_msg(_STREAM, letter_id)
    except nats.js.errors.APIError as error:
        # What another replay has deleted meanwhile is refused as if the server had failed.
        if error.err_code not in _NOTHING_DELETED:
            raise


def _letter(message: RawStreamMsg) -> DeadLetter:
    headers = {name: str(value) for name, value in (message.headers or {}).items()}
    own = {name: value for name, value in headers.items() if not name.startswith(("rat-dead-", "Nats-"))}
    assert message.seq is not None
    assert message.time is not None
    return DeadLetter(
        id=message.seq,
        subject=headers.get("rat-dead-subject", ""),
        service=headers.get("rat-dead-service", ""),
        reason=from_header(headers.get("rat-dead-reason", "")),
        deliveries=int(headers.get("rat-dead-deliveries", 0)),
        event_id=headers.get("ce-id", ""),
        died_at=message.time,
        headers=own,
        body=message.data or b"",
    )


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
        raise Unavailable(f"the dead letters cannot be reached: {error!r}") from error
