"""Reading a stream of events from any place on, for as long as somebody looks, without a trace left behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final
from uuid import uuid4

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.bus import Bus
from shared.errors import Unavailable

STREAMS: Final = ("EVENTS", "LOGS")
"""Those that are read here."""

_BATCH: Final = 250
_ASK_SECONDS: Final = 5.0
"""How long a request for more stands; then it is asked again."""
_FORGET_SECONDS: Final = 60.0
"""When the server forgets a reader that does not ask any more."""
_LOST: Final = (TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError)


class Tail:
    """A reader of a stream; when the server loses it, it goes on behind the last message that it gave."""

    def __init__(self, bus: Bus, stream: str, start: ConsumerConfig) -> None:
        self._bus = bus
        self._stream = stream
        self._config = start
        self._consumer = ""
        self._subscription: Subscription | None = None
        self._asked_until = 0.0
        self._outstanding = 0
        self.behind = 0
        """How many messages there were to come, when the reader was made or the last one was given."""

    async def open(self) -> None:
        """Make the reader known to the server; `Unavailable` if that cannot be reached."""
        try:
            # The server would choose a name itself, but by a request that can be made to change a service's consumer.
            named = self._config.evolve(name=f"gateway-{uuid4().hex}")
            info = await self._bus.jetstream.add_consumer(self._stream, named)
            self._subscription = await self._bus.connection.subscribe(self._bus.connection.new_inbox())
        except _LOST as error:
            raise Unavailable(f"the stream {self._stream} cannot be read: {error!r}") from error
        self._consumer = info.name
        self._outstanding = 0
        self.behind = info.num_pending or 0
        if self._config.deliver_policy == DeliverPolicy.NEW and info.delivered is not None:
            # Opened again, it goes on from here, not from then.
            self._continue_after(info.delivered.stream_seq)

    async def close(self) -> None:
        """Leave."""
        with suppress(*_LOST):
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            await self._bus.jetstream.delete_consumer(self._stream, self._consumer)

    async def remaining(self) -> int:
        """How many messages are there by now that were not given yet."""
        assert self._subscription is not None
        try:
            info = await self._bus.jetstream.consumer_info(self._stream, self._consumer)
        except _LOST as error:
            raise Unavailable(f"the stream {self._stream} cannot be read: {error!r}") from error
        return (info.num_pending or 0) + self._subscription.pending_msgs

    async def next(self, timeout: float) -> Msg | None:
        """The next message; None if there is none within so many seconds."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        while (left := deadline - clock()) > 0:
            try:
                message = await self._wait(left)
            except (TimeoutError, nats.errors.TimeoutError):
                continue
            except _LOST as error:
                raise Unavailable(f"the stream {self._stream} cannot be read: {error!r}") from error
            if not (message.headers or {}).get("Status"):
                return self._given(message)
            await self._told(message)
        return None

    async def _wait(self, seconds: float) -> Msg:
        assert self._subscription is not None
        now = asyncio.get_running_loop().time()
        if self._outstanding <= 0 or now >= self._asked_until:
            self._outstanding = _BATCH
            self._asked_until = now + _ASK_SECONDS
            request = {"batch": _BATCH, "expires": int((_ASK_SECONDS - 0.5) * 1e9)}
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
            await self._bus.connection.publish(subject, json.dumps(request).encode(), reply=self._subscription.subject)
        return await self._subscription.next_msg(timeout=min(seconds, max(self._asked_until - now, 0.01)))

    def _given(self, message: Msg) -> Msg:
        metadata = message.metadata
        self._outstanding -= 1
        self.behind = metadata.num_pending
        self._continue_after(metadata.sequence.stream)
        return message

    def _continue_after(self, sequence: int) -> None:
        self._config = self._config.evolve(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=sequence + 1, opt_start_time=None
        )

    async def _told(self, message: Msg) -> None:
        """The server says something of the request: that its time is over, or that it does not know the reader."""
        status = (message.headers or {})["Status"]
        self._outstanding = 0
        if status in ("408", "404"):
            return
        await asyncio.sleep(0.2)
        await self.close()
        await self.open()


def from_now() -> ConsumerConfig:
    """Begin with what comes next."""
    return ConsumerConfig(deliver_policy=DeliverPolicy.NEW)


def from_start() -> ConsumerConfig:
    """Begin with the oldest message that there is."""
    return ConsumerConfig(deliver_policy=DeliverPolicy.ALL)


def from_time(moment: datetime) -> ConsumerConfig:
    """Begin with the first message from this time on."""
    return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=moment)


def after(sequence: int) -> ConsumerConfig:
    """Begin behind the message of this number."""
    return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=sequence + 1)


@asynccontextmanager
async def tail(bus: Bus, stream: str, subjects: Sequence[str], start: ConsumerConfig) -> AsyncIterator[Tail]:
    """Read the messages of a stream on these subjects."""
    config = start.evolve(
        filter_subjects=list(subjects),
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_FORGET_SECONDS,
        mem_storage=True,
        num_replicas=1,
    )
    reader = Tail(bus, stream, config)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()
