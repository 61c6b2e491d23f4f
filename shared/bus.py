"""The bus: what a service hears, says, asks and answers, over NATS by FastStream.

A service declares itself with `hear`, `take`, `say`, `answer`, `asks` and `reads` (nothing is connected by that:
documents, tests and the permissions of its user are made from the declarations), then lives inside `running()`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from inspect import getdoc
from time import perf_counter
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
import structlog
from faststream import BaseMiddleware
from faststream.nats import NatsBroker
from faststream.nats.message import NatsMessage
from faststream.security import SASLPlaintext
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext

from contracts.health import CheckHealth, Dependency, Health
from contracts.messages import Event, Query
from shared.answers import read_answer
from shared.background import background, end, every
from shared.deliveries import ACK_WAIT_SECONDS, Delivery, straight_to
from shared.errors import Internal, Invalid, Unavailable
from shared.events import MAX_MESSAGE_BYTES, decode_event, event_body, event_headers, event_id
from shared.failures import retry_delay
from shared.headers import to_header
from shared.leases import Taker
from shared.logs import correlation_id
from shared.pulling import Pulling, inbox_prefix
from shared.settings import Settings
from shared.streams import DEAD_PREFIX
from shared.tls import nats_tls

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
A = TypeVar("A")

FAULT_DELIVERIES: Final = 8
EVENT_CONCURRENCY: Final = 4
QUERY_CONCURRENCY: Final = 32
QUERY_TIMEOUT_SECONDS: Final = 30.0
LOOK_TIMEOUT_SECONDS: Final = 3.0
"""How long a server may take to show that it is there."""
CONNECT_SECONDS: Final = 15.0
"""How long one try to connect may take, over all addresses of NATS."""
PING_SECONDS: Final = 15
"""How often NATS is asked for a sign of life; a connection on which two are missing is given up and made anew."""
CONSUMER_SECONDS: Final = 5.0
"""How long a durable consumer is missing at the most that somebody deleted, alone or with its stream."""
DRAIN_SECONDS: Final = 3
"""How long a service that stops waits for messages that came and that nobody reads any more: they come again."""


class Bus:
    """One service's place on the bus."""

    def __init__(
        self,
        broker: NatsBroker,
        service: str,
        on_reconnect: list[Callable[[], None]],
        *,
        lease_seconds: float = ACK_WAIT_SECONDS,
    ) -> None:
        self.broker = broker
        self.service = service
        self.heard: dict[type[Event], Callable[..., Awaitable[None]] | None] = {}
        self.said: list[type[Event]] = []
        self.answered: dict[type[Query[Any]], Callable[..., Awaitable[Any]]] = {}
        self.asked: set[type[Query[Any]]] = set()
        self.read: set[str] = set()
        """The streams that the service reads from any place on, without a place of its own in them."""
        self.on_reconnect = on_reconnect
        """What to do when NATS is back after it was away: what was said meanwhile by others may be lost."""
        self.fault_deliveries = FAULT_DELIVERIES
        """How often a message that runs into a fault of ours is tried before it becomes a dead letter."""
        self.taken: set[str] = set()
        """The subjects whose messages are held by a taker, beyond one call: nothing acknowledges them here."""
        self.checks: dict[str, Callable[[], Awaitable[object]]] = {}
        self._lease_seconds = lease_seconds
        self._pulling = Pulling(broker, service)
        broker.add_middleware(self._delivery)

    # Declaring

    def hear(self, event: type[E], handler: Callable[[E], Awaitable[None]]) -> None:
        """Call `handler` with every event of this kind, one replica of the service each, until it succeeds.

        A few are handled at once, as replicas would do.
        """
        self.heard[event] = handler
        if event.stored:
            subscriber = self._pulling.subscriber(event, ACK_WAIT_SECONDS, max_workers=EVENT_CONCURRENCY)
            subscriber(handler)
            subscriber.consume = straight_to(
                handler,
                event,
                subscriber=subscriber,
                delivery=lambda raw: self._delivery(raw, context=self.broker.context),
            )
        else:
            self.broker.subscriber(event.subject, decoder=decode_event)(handler)

    def take(self, event: type[Event]) -> Taker:
        """Hear events of this kind one at a time, when the caller asks for the next."""
        self.heard[event] = None
        self.taken.add(event.subject)
        return Taker(self._pulling.subscriber(event, self._lease_seconds), event, self.bury)

    def answer(self, query: type[Query[A]], handler: Callable[[Any], Awaitable[A]]) -> None:
        """Answer these queries; an error that `handler` raises reaches the asker as the same class."""
        self.answered[query] = handler
        self.broker.subscriber(query.subject, queue=self.service, max_workers=QUERY_CONCURRENCY)(handler)

    def say(self, *events: type[Event]) -> None:
        """Declare that this service publishes these events."""
        for event in events:
            self.said.append(event)
            self.broker.publisher(event.subject, schema=event, description=getdoc(event))

    def asks(self, *queries: type[Query[Any]]) -> None:
        """Declare that this service asks these queries; it is not permitted to ask any other."""
        self.asked.update(queries)

    def reads(self, *streams: str) -> None:
        """Declare that this service reads these streams from any place on, as somebody who looks does."""
        self.read.update(streams)

    def check(self, dependency: str, look: Callable[[], Awaitable[object]]) -> None:
        """Name a server that this service depends on, and how to see that it is there: `look` raises if it is not."""
        self.checks[dependency] = look

    def _delivery(self, message: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        return Delivery(
            message,
            context=context,
            service=self.service,
            taken=self.taken,
            tries=self.fault_deliveries,
            bury=self.bury,
        )

    # Living

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect, hear and answer, also how the service is, until the block is left."""
        health = f"{self.service}.health"
        self.broker.subscriber(health, queue=self.service, include_in_schema=False)(self.health)
        try:
            await self._start()
            async with background(lambda: every(CONSUMER_SECONDS, lambda: self._pulling.keep(self.jetstream))):
                yield
        finally:
            if self.broker.config.connection_state:
                await self._leave(self.connection)

    async def _start(self) -> None:
        """Start once the server and its streams can be reached: they may come up after us."""
        for attempt in range(1, 1000):
            try:
                await self._connect()
                await self._pulling.make(self.jetstream)
                await self.broker.start()
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.info("waiting for nats", service=self.service, error=repr(error))
                await asyncio.sleep(retry_delay(attempt) / 3)
            else:
                return self._pulling.be_patient()
        raise Unavailable("NATS cannot be reached")

    async def _connect(self) -> None:
        connecting = asyncio.create_task(self.broker.connect())
        try:
            # nats-py waits without an end for the close of a connection whose TLS handshake took too long.
            await asyncio.wait({connecting}, timeout=CONNECT_SECONDS)
            if not connecting.done():
                raise TimeoutError(f"no connection within {CONNECT_SECONDS:g} s")
            connecting.result()
        finally:
            # While it tries one address after the other, it loses nearly every second cancellation.
            await end({connecting})

    async def _leave(self, connection: NatsClient) -> None:
        try:
            # NATS may be away: then there is nothing to say farewell to.
            with suppress(nats.errors.Error, OSError):
                await self.broker.stop()
        finally:
            await close_for_good(connection)

    async def health(self, query: CheckHealth) -> Health:
        """Say that the service is there, and which of the servers that it depends on are."""
        looks = (_look(dependency, look) for dependency, look in self.checks.items())
        return Health(
            service=self.service, version=version("rat-platform"), dependencies=list(await asyncio.gather(*looks))
        )

    async def publish(self, event: Event) -> None:
        """Publish an event past the outbox: for services without a database.

        Returns once JetStream has stored it; `Unavailable` when it cannot be reached.
        """
        await self.send(event.address(), event_body(event), event_headers(event), stored=event.stored)

    async def tell(self, events: Iterable[Event]) -> None:
        """Publish events of which some may be lost; returns once NATS has read them, stored or not.

        They are stored in this order, and before what is published after them. `Unavailable` as above.
        """
        for event in events:
            await self.send(event.address(), event_body(event), event_headers(event), stored=False)
        try:
            await self.connection.flush(timeout=5)
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS cannot be reached: {error!r}") from error

    async def send(self, subject: str, body: bytes, headers: Mapping[str, str], *, stored: bool) -> None:
        """Publish a message in this service's name; `Unavailable` when NATS does not confirm one that is `stored`."""
        signed = {"ce-source": f"rat/{self.service}", **headers}
        try:
            if stored:
                await self.jetstream.publish(subject, body, headers=signed, timeout=5)
            else:
                await self.connection.publish(subject, body, headers=signed)
        except (TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError) as error:
            raise Unavailable(f"{subject} could not be published: {error!r}") from error

    async def ask(self, query: Query[A], *, timeout: float = QUERY_TIMEOUT_SECONDS) -> A:
        """Ask and wait for the answer; the answering service's error is raised here as the same class.

        `Unavailable` when nobody answers, `Invalid` for a question larger than a message may be, `Internal` for one
        that was not declared by `asks`: the service's user could not publish it.
        """
        if type(query) not in self.asked:
            raise Internal(f"{self.service} asks {query.address()}, but does not declare that it does")
        body = query.model_dump_json().encode()
        if len(body) > MAX_MESSAGE_BYTES:
            raise Invalid(f"a request of {len(body)} bytes is larger than a message may be ({MAX_MESSAGE_BYTES})")
        headers = {"content-type": "application/json"}
        if (current := correlation_id.get()) is not None:
            headers["correlation_id"] = current
        service = query.address().partition(".")[0]
        try:
            reply = await self.connection.request(query.address(), body, timeout=timeout, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"no {service} service is running") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise Unavailable(f"{service} did not answer within {timeout:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"{service} cannot be reached: {error!r}") from error
        return read_answer(query, reply)

    async def bury(self, message: NatsMessage, why: str) -> None:
        """Move a message to the dead-letter stream with the reason, then end its deliveries."""
        raw = message.raw_message
        headers = {name: to_header(value) for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
        headers |= {
            "rat-dead-reason": to_header(why[:2000]),
            "rat-dead-service": self.service,
            "rat-dead-subject": raw.subject,
            "rat-dead-deliveries": str(raw.metadata.num_delivered),
            "ce-id": str(event_id(message)),
        }
        log.error("dead letter", subject=raw.subject, service=self.service, reason=why)
        await self.send(f"{DEAD_PREFIX}{self.service}.{raw.subject}", raw.data, headers, stored=True)
        await message.reject()

    @property
    def connection(self) -> NatsClient:
        """The connection to NATS, once running."""
        connection: NatsClient = self.broker.config.connection_state.connection
        return connection

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream over that connection."""
        stream: JetStreamContext = self.broker.config.connection_state.stream
        return stream


async def close_for_good(connection: NatsClient) -> None:
    """Close a connection, also one that is lost: it would look for its server for as long as the process lives."""
    reconnecting = connection._reconnection_task
    if not connection.is_connected:
        # Nobody takes what was not sent: closing would stop half way when it tries that.
        connection._pending.clear()
        connection._pending_data_size = 0
    with suppress(OSError):
        await connection.close()
    if reconnecting is not None:
        # Closing cancels it once, which it may lose.
        await end({reconnecting})


async def _look(dependency: str, look: Callable[[], Awaitable[object]]) -> Dependency:
    began = perf_counter()
    problem = None
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            await look()
    except Exception as error:
        log.warning("dependency is down", dependency=dependency, error=repr(error))
        problem = str(error) or type(error).__name__
    return Dependency(
        name=dependency,
        state="down" if problem else "up",
        latency_ms=round((perf_counter() - began) * 1000, 3),
        message=problem,
    )


def declare(service: str) -> Bus:
    """A bus that is never connected: for reading what a service declares."""
    return Bus(NatsBroker(logger=None), service, [])


def connect(settings: Settings, service: str) -> Bus:
    """The bus of a service, logged in as its own user with an inbox prefix of its own."""
    on_reconnect: list[Callable[[], None]] = []

    async def tell_of_reconnect() -> None:
        for tell in on_reconnect:
            tell()

    broker = NatsBroker(
        settings.nats_urls,
        name=f"rat-{service}",
        security=SASLPlaintext(
            username=service, password=settings.nats_password(service), ssl_context=nats_tls(settings)
        ),
        inbox_prefix=inbox_prefix(service),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,  # type: ignore[arg-type]  # nats-py takes fractions of a second
        connect_timeout=5,
        ping_interval=PING_SECONDS,
        max_outstanding_pings=2,
        graceful_timeout=10,
        drain_timeout=DRAIN_SECONDS,
        error_cb=_note_error,
        reconnected_cb=tell_of_reconnect,
        logger=None,
    )
    return Bus(broker, service, on_reconnect, lease_seconds=settings.run_lease_seconds)


async def _note_error(error: Exception) -> None:
    if "permissions violation" in str(error).lower():
        # Whoever waits for the answer sees no more than that none comes.
        log.error("not permitted", error=str(error))
    else:
        log.debug("nats connection", error=repr(error))
