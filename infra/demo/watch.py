"""Hears the platform's events as any client can, over NATS or HTTP, and knows when nothing more is to come."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from uuid import UUID, uuid4

import httpx
import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts.landing import FileLanded
from contracts.messages import Event
from contracts.runs import RunFinished, RunProgressed, RunRejected, RunStarted, RunStatus
from contracts.tables import TableChanged
from contracts.triggers import Decision, TriggerDecided
from infra.connection import Connection
from shared.background import end, happens
from shared.errors import TimedOut, Unavailable
from shared.lines import Lines
from shared.pulling import inbox_prefix
from shared.tls import trusting

E = TypeVar("E", bound=Event)

HEARD: Final[dict[str, type[Event]]] = {
    event.subject: event
    for event in (FileLanded, TriggerDecided, RunStarted, RunProgressed, RunFinished, RunRejected, TableChanged)
}
_STREAM: Final = "EVENTS"
_PATIENCE_SECONDS: Final = 60.0


class Watch:
    """All that was heard so far, and what it tells of what is still to come."""

    def __init__(self, followers: dict[str, int]) -> None:
        self.heard: list[Event] = []
        self._followers = followers
        self._arrival = asyncio.Event()
        self._failure: BaseException | None = None

    def take(self, event: Event) -> None:
        """Note an event."""
        self.heard.append(event)
        self._arrival.set()

    def fail(self, failure: BaseException) -> None:
        """Note that nothing is heard any more, and why."""
        self._failure = failure
        self._arrival.set()

    def check(self) -> None:
        """Raise why nothing is heard any more, if that is so."""
        if self._failure is not None:
            raise self._failure

    def of(self, kind: type[E], since: int = 0) -> list[E]:
        """The events of a kind, from the place `since` in what was heard on."""
        return [event for event in self.heard[since:] if isinstance(event, kind)]

    async def until_settled(self, *, since: int, files: int) -> None:
        """Wait until so many files have landed since then, and every run that they led to has ended.

        `TimedOut` says what is missing when nothing was heard for a minute.
        """
        while missing := self._missing(since, files):
            self.check()
            self._arrival.clear()
            if not await happens(self._arrival, within_seconds=_PATIENCE_SECONDS):
                raise TimedOut(f"nothing was heard for {_PATIENCE_SECONDS:g} s, and there is still no {missing}")

    def _missing(self, since: int, files: int) -> str | None:
        landed = self.of(FileLanded, since)
        if len(landed) < files:
            return f"file.landed for {files - len(landed)} of {files} files"
        decisions = self.of(TriggerDecided, since)
        wanted = {file.event_id: 1 for file in landed} | {
            run.event_id: self._followers.get(run.pipeline.partition(".")[2], 0)
            for run in self.of(RunFinished, since)
            if run.status == RunStatus.SUCCESS
        }
        for cause, count in wanted.items():
            if sum(decision.cause_id == cause for decision in decisions) < count:
                return f"decision of a trigger on event {cause}"
        ended: set[UUID] = {run.run_id for run in self.of(RunFinished)} | {run.run_id for run in self.of(RunRejected)}
        for decision in decisions:
            # What joins a run that waits adds none; the decision that made it wait names the run.
            if decision.decision in (Decision.FIRED, Decision.DEFERRED) and decision.run_id not in ended:
                return f"end of run {decision.run_id} of {decision.pipeline}"
        return None


@asynccontextmanager
async def watching(
    connection: Connection, namespace: str, followers: dict[str, int], show: Callable[[Event], None]
) -> AsyncIterator[Watch]:
    """Hear from NATS what happens in a namespace from now on; each event is shown as it arrives.

    `followers` says how many triggers a success of a pipeline (`layer.name`) is heard by.
    """
    user = connection.nats.subscriber
    client = await nats.connect(
        connection.nats.url,
        user=user.user,
        password=user.password,
        tls=trusting(connection.nats.ca_file) if connection.nats.ca_file else None,
        inbox_prefix=inbox_prefix(user.user),
        # After a TLS handshake that took too long nats-py may wait without an end: a busy machine is given its time.
        connect_timeout=20,
    )
    try:
        jetstream = client.jetstream()
        config = ConsumerConfig(
            name=f"demo-{uuid4().hex}",
            filter_subjects=list(HEARD),
            deliver_policy=DeliverPolicy.NEW,
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            inactive_threshold=60.0,
        )
        consumer = await jetstream.add_consumer(_STREAM, config)
        async with _taking(_heard(jetstream, consumer.name), namespace, followers, show) as watch:
            yield watch
    finally:
        await client.close()


@asynccontextmanager
async def watching_over_http(
    http: httpx.AsyncClient, namespace: str, followers: dict[str, int], show: Callable[[Event], None]
) -> AsyncIterator[Watch]:
    """Hear from the API's stream of events what happens in a namespace from now on, as `watching` does from NATS."""
    attached = asyncio.Event()
    async with _taking(_followed(http, attached), namespace, followers, show) as watch:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not attached.is_set():
                watch.check()
                await asyncio.sleep(0.02)
        yield watch


@asynccontextmanager
async def _taking(
    events: AsyncIterator[Event], namespace: str, followers: dict[str, int], show: Callable[[Event], None]
) -> AsyncIterator[Watch]:
    """Take what happens in the namespace from these events, until the block is left."""
    watch = Watch(followers)

    async def take() -> None:
        ours: set[UUID] = set()
        async for event in events:
            if _is_of(event, namespace, ours):
                watch.take(event)
                show(event)

    hearing = asyncio.create_task(take())
    hearing.add_done_callback(lambda task: None if task.cancelled() else watch.fail(task.exception() or EOFError()))
    try:
        yield watch
    finally:
        await end({hearing})


async def _heard(jetstream: JetStreamContext, consumer: str) -> AsyncIterator[Event]:
    subscription = await jetstream.pull_subscribe_bind(consumer=consumer, stream=_STREAM)
    while True:
        try:
            messages = await subscription.fetch(50, timeout=5)
        except TimeoutError:  # nats.errors.TimeoutError is one
            continue
        for message in messages:
            yield HEARD[message.subject].model_validate_json(message.data)


async def _followed(http: httpx.AsyncClient, attached: asyncio.Event) -> AsyncIterator[Event]:
    """What the API sends; a connection that is lost is made again, and goes on where it was lost."""
    last_id: str | None = None
    lost_at: float | None = None
    while True:
        try:
            headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
            async with http.stream("GET", "/events", params={"types": ",".join(HEARD)}, headers=headers) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise Unavailable(f"the stream of events answered {answer.status_code}: {answer.text}")
                fields: dict[str, str] = {}
                text = Lines()
                async for piece in answer.aiter_bytes():
                    attached.set()
                    lost_at = None
                    for line in text.cut(piece):
                        name, _, value = line.partition(": ")
                        fields[name] = value
                        if not line and "data" in fields:
                            last_id = fields["id"]
                            yield HEARD[fields["event"]].model_validate_json(fields["data"])
                        if not line:
                            fields = {}
        except httpx.TransportError as error:
            lost_at = lost_at or time.monotonic()
            if not attached.is_set() or time.monotonic() - lost_at > _PATIENCE_SECONDS:
                raise Unavailable(f"no platform answers at {http.base_url}: {error}") from error
        await asyncio.sleep(0.5)


def _is_of(event: Event, namespace: str, runs: set[UUID]) -> bool:
    """Whether an event belongs to the namespace; `runs` keeps which runs do."""
    match event:
        case FileLanded() | TableChanged():
            return event.namespace == namespace
        case RunProgressed():
            return event.run_id in runs and event.phase is not None
        case RunStarted() | RunFinished() | TriggerDecided() | RunRejected():
            is_ours = event.pipeline.startswith(f"{namespace}.")
            if is_ours and event.run_id is not None:
                runs.add(event.run_id)
            return is_ours
        case _:
            return False
