"""The bus: what a service hears, says, asks and answers, over NATS by FastStream.

A service declares itself with `hear`, `take`, `say`, `answer`, `asks` and `reads` (nothing is connected by that:
documents, tests and the permissions of its user are made from the declarations), then lives inside `running()`. How a
message is acknowledged is decided here, in one middleware, and nowhere else:

- handled: acknowledged, and the server's confirmation awaited;
- `Unavailable`, `Conflict`, lost connections: given back with a growing delay, for as long as it takes;
- cannot be understood, or refused for good: to the dead-letter stream with its reason, then ended;
- a fault of ours: given back a few times, then to the dead-letter stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from inspect import getdoc
from time import perf_counter
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
import nats.errors
import nats.js.errors
import structlog
from fast_depends.exceptions import ValidationError as CallInvalid
from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import IgnoredException
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from faststream.response import Response
from faststream.security import SASLPlaintext
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from pydantic import TypeAdapter, ValidationError

from contracts.health import CheckHealth, Dependency, Health
from contracts.messages import Event, Query, derived_id
from shared.background import background, end, every
from shared.errors import BY_CODE, Conflict, Internal, Invalid, RatError, TimedOut, Unavailable
from shared.fields import field_problems
from shared.headers import to_header
from shared.logs import correlation_id
from shared.settings import Settings
from shared.streams import DEAD_PREFIX, stream_of
from shared.tls import nats_tls

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
A = TypeVar("A")

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""No message is larger (`system.md`, Events): lists are answered in pages, reports lie in S3."""
ACK_WAIT_SECONDS: Final = 30.0
FAULT_DELIVERIES: Final = 8
ERROR_HEADER: Final = "rat-error"
EVENT_CONCURRENCY: Final = 4
QUERY_CONCURRENCY: Final = 32
QUERY_TIMEOUT_SECONDS: Final = 30.0
LOOK_TIMEOUT_SECONDS: Final = 3.0
"""How long a server may take to show that it is there."""
CONNECT_SECONDS: Final = 15.0
"""How long one try to connect may take, over all addresses of NATS."""
CONSUMER_SECONDS: Final = 5.0
"""How long a durable consumer is missing at the most that somebody deleted, alone or with its stream."""
DRAIN_SECONDS: Final = 3
"""How long a service that stops waits for messages that came and that nobody reads any more: they come again."""
PULL_PAUSE_SECONDS: Final = 0.2
"""How long a pull waits that nobody answers, as there is no consumer, or none that has a leader."""

TRANSIENT: Final = (
    Unavailable,
    TimedOut,
    Conflict,
    OSError,
    asyncio.TimeoutError,
    nats.errors.Error,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)
"""What another try may mend, however long it takes."""


def retry_delay(deliveries: int) -> float:
    """Seconds until a message that was delivered this often is tried again: 0.1, doubling, at most 30."""
    return float(min(0.1 * 2 ** min(deliveries - 1, 20), 30.0))


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


@dataclass(frozen=True)
class Lease:
    """A message that its taker holds until it acknowledges it or gives it back, beyond one handler's call."""

    event: Event
    message: NatsMessage

    @property
    def delivery(self) -> str:
        """What tells this delivery from any other one."""
        metadata = self.message.raw_message.metadata
        return f"{metadata.stream}:{metadata.sequence.stream}:{metadata.num_delivered}"

    async def renew(self) -> None:
        """Say that work goes on, before the lease runs out; a lost connection is no reason to stop."""
        with suppress(nats.errors.Error, OSError):
            await self.message.in_progress()

    async def acknowledge(self) -> None:
        """Say that the work is done and stored; if that is lost, the message comes again."""
        with suppress(nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError, OSError):
            await self.message.ack_sync()

    async def give_back(self, delay_seconds: float) -> None:
        """Let another taker have it after a while."""
        with suppress(nats.errors.Error, OSError):
            await self.message.nack(delay=delay_seconds)


class Taker:
    """Takes one message at a time, when its owner has room for it."""

    def __init__(self, bus: "Bus", subscriber: Any, event: type[Event]) -> None:
        self._bus = bus
        self._subscriber = subscriber
        self._event = event

    async def take(self) -> Lease:
        """Wait for the next message; one that cannot be understood becomes a dead letter on the way."""
        while True:
            try:
                message = await self._subscriber.get_one(timeout=5)
            except (nats.errors.Error, nats.js.errors.Error, OSError):
                await asyncio.sleep(0.2)
                continue
            if message is None:
                continue
            try:
                return Lease(self._event.model_validate(await _decode_event(message)), message)
            except ValidationError as error:
                await self._bus.bury(message, reason(error))


class Bus:
    """One service's place on the bus."""

    def __init__(self, broker: NatsBroker, service: str, *, lease_seconds: float = ACK_WAIT_SECONDS) -> None:
        self.broker = broker
        self.service = service
        self.heard: dict[type[Event], Callable[..., Awaitable[None]] | None] = {}
        self.said: list[type[Event]] = []
        self.answered: dict[type[Query[Any]], Callable[..., Awaitable[Any]]] = {}
        self.asked: set[type[Query[Any]]] = set()
        self.read: set[str] = set()
        """The streams that the service reads from any place on, without a place of its own in them."""
        self.on_reconnect: list[Callable[[], None]] = []
        """What to do when NATS is back after it was away: what was said meanwhile by others may be lost."""
        self.fault_deliveries = FAULT_DELIVERIES
        """How often a message that runs into a fault of ours is tried before it becomes a dead letter."""
        self.taken: set[str] = set()
        """The subjects whose messages are held by a taker, beyond one call: nothing acknowledges them here."""
        self.checks: dict[str, Callable[[], Awaitable[object]]] = {}
        self._lease_seconds = lease_seconds
        self._consumers: list[tuple[str, ConsumerConfig]] = []
        """Stream and consumer of each event that is pulled."""
        self._pulling: list[Any] = []

    # Declaring

    def hear(self, event: type[E], handler: Callable[[E], Awaitable[None]]) -> None:
        """Call `handler` with every event of this kind, one replica of the service each, until it succeeds.

        A few are handled at once, as replicas would do.
        """
        self.heard[event] = handler
        if event.stored:
            self._pulled(event, ACK_WAIT_SECONDS, max_workers=EVENT_CONCURRENCY)(handler)
        else:
            self.broker.subscriber(event.subject, decoder=_decode_event)(handler)

    def take(self, event: type[Event]) -> Taker:
        """Hear events of this kind one at a time, when the caller asks for the next."""
        self.heard[event] = None
        self.taken.add(event.subject)
        return Taker(self, self._pulled(event, self._lease_seconds), event)

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

    def _pulled(self, event: type[Event], ack_wait_seconds: float, **options: Any) -> Any:
        durable, stream = durable_name(self.service, event.subject), stream_of(event.subject)
        config = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=event.subject,
            ack_wait=ack_wait_seconds,
            max_ack_pending=1000,
            max_deliver=-1,
        )
        self._consumers.append((stream, config))
        subscriber = self.broker.subscriber(
            event.subject,
            stream=JStream(stream, declare=False),
            durable=durable,
            # Not the connection's, unless it is said: where everybody may listen, the outside publisher too.
            inbox_prefix=f"{inbox_prefix(self.service)}.".encode(),
            pull_sub=PullSub(batch_size=1, timeout=5.0),
            config=config,
            ack_policy=AckPolicy.MANUAL,
            decoder=_decode_event,
            **options,
        )
        self._pulling.append(subscriber)
        return subscriber

    # Living

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect, hear and answer, also how the service is, until the block is left."""
        health = f"{self.service}.health"
        self.broker.subscriber(health, queue=self.service, include_in_schema=False)(self.health)
        await self._start()
        connection = self.connection
        try:
            async with background(lambda: every(CONSUMER_SECONDS, self._keep_consumers)):
                yield
        finally:
            try:
                # NATS may be away: then there is nothing to say farewell to.
                with suppress(nats.errors.Error, OSError):
                    await self.broker.stop()
            finally:
                await close_for_good(connection)

    async def _start(self) -> None:
        """Start once the server and its streams can be reached: they may come up after us."""
        for attempt in range(1, 1000):
            try:
                # nats-py waits without an end for the close of a connection whose TLS handshake took too long.
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self.broker.connect()
                await self._make_consumers()
                await self.broker.start()
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                log.info("waiting for nats", service=self.service, error=repr(error))
                await asyncio.sleep(retry_delay(attempt) / 3)
            else:
                return self._pull_patiently()
        raise Unavailable("NATS cannot be reached")

    async def _make_consumers(self) -> None:
        """Make the consumers as they are declared now: one of an earlier start may have had another lease."""
        for stream, config in self._consumers:
            await self.jetstream.add_consumer(stream, config)

    async def _keep_consumers(self) -> None:
        """Make durable consumers again that somebody deleted, alone or with their stream."""
        for stream, config in self._consumers:
            # Its stream may not be there again yet, or NATS not.
            with suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                await self._ensure_consumer(stream, config)

    async def _ensure_consumer(self, stream: str, config: ConsumerConfig) -> None:
        try:
            await self.jetstream.consumer_info(stream, str(config.durable_name))
        except nats.js.errors.NotFoundError:
            await self.jetstream.add_consumer(stream, config)
            log.warning("a consumer was gone", service=self.service, stream=stream, consumer=config.durable_name)

    def _pull_patiently(self) -> None:
        """Let no subscriber pull without a pause where nobody answers, which FastStream's would do."""
        for subscriber in self._pulling:
            if subscriber.subscription is not None:
                subscriber.subscription.fetch = _patient(subscriber.subscription.fetch)

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

    async def send(self, subject: str, body: bytes, headers: Mapping[str, str], *, stored: bool) -> None:
        """Publish a message in this service's name; `Unavailable` when NATS does not confirm it."""
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
        return _read_answer(query, reply)

    async def bury(self, message: NatsMessage, why: str) -> None:
        """Move a message to the dead-letter stream with the reason, then end its deliveries."""
        raw = message.raw_message
        headers = {name: to_header(value) for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
        headers |= {
            "rat-dead-reason": to_header(why[:2000]),
            "rat-dead-service": self.service,
            "rat-dead-subject": raw.subject,
            "rat-dead-deliveries": str(raw.metadata.num_delivered),
            "ce-id": str(_event_id(message)),
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
    await connection.close()
    if reconnecting is not None:
        # Closing cancels it once, which it may lose.
        await end({reconnecting})


def _patient(fetch: Callable[..., Awaitable[list[Msg]]]) -> Callable[..., Awaitable[list[Msg]]]:
    async def fetch_patiently(*arguments: Any, **options: Any) -> list[Msg]:
        try:
            return await fetch(*arguments, **options)
        except nats.js.errors.APIError:
            await asyncio.sleep(PULL_PAUSE_SECONDS)
            raise

    return fetch_patiently


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


def durable_name(service: str, subject: str) -> str:
    """How the durable consumer is called by which a service hears a subject."""
    return f"{service}-{subject.replace('.', '-').replace('*', 'any').replace('>', 'all')}"


def inbox_prefix(user: str) -> str:
    """What the inboxes of a user begin with, so that nobody else may listen there."""
    return f"_INBOX_{user}"


def declare(service: str) -> Bus:
    """A bus that is never connected: for reading what a service declares."""
    return Bus(NatsBroker(logger=None), service)


def connect(settings: Settings, service: str) -> Bus:
    """The bus of a service, logged in as its own user with an inbox prefix of its own."""
    holder: list[Bus] = []

    def middleware(message: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
        return Delivery(message, context=context, bus=holder[0])

    async def tell_of_reconnect() -> None:
        for told in holder[0].on_reconnect:
            told()

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
        graceful_timeout=10,
        drain_timeout=DRAIN_SECONDS,
        error_cb=_note_error,
        reconnected_cb=tell_of_reconnect,
        middlewares=[middleware],
        logger=None,
    )
    bus = Bus(broker, service, lease_seconds=settings.run_lease_seconds)
    holder.append(bus)
    return bus


async def _note_error(error: Exception) -> None:
    if "permissions violation" in str(error).lower():
        # Whoever waits for the answer sees no more than that none comes.
        log.error("not permitted", error=str(error))
    else:
        log.debug("nats connection", error=repr(error))


class Delivery(BaseMiddleware[Any, Msg]):
    """What becomes of a message after its handler: see the top of this module."""

    def __init__(self, message: Any, /, *, context: Any, bus: Bus) -> None:
        super().__init__(message, context=context)
        self._bus = bus

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
        """Call the handler, then acknowledge, give back, bury, or answer."""
        if msg.raw_message.subject in self._bus.taken:
            return await call_next(msg)
        token = correlation_id.set(msg.correlation_id)
        try:
            if msg.raw_message.reply.startswith("$JS.ACK"):
                return await self._deliver(call_next, msg)
            return await _answer(call_next, msg)
        finally:
            correlation_id.reset(token)

    async def _deliver(self, call_next: Callable[[Any], Awaitable[Any]], message: NatsMessage) -> None:
        metadata = message.raw_message.metadata
        renewal = asyncio.create_task(_renew(message))
        try:
            await call_next(message)
            with suppress(nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError):
                await message.ack_sync()
        except TRANSIENT as error:
            log.warning("delayed", subject=message.raw_message.subject, service=self._bus.service, error=repr(error))
            await _give_back(message, metadata.num_delivered)
        except (RatError, ValidationError, CallInvalid) as error:
            await self._bury_or_give_back(message, reason(error))
        except Exception as error:
            log.exception("handler failed", subject=message.raw_message.subject, service=self._bus.service)
            if metadata.num_delivered >= self._bus.fault_deliveries:
                await self._bury_or_give_back(message, repr(error))
            else:
                await _give_back(message, metadata.num_delivered)
        finally:
            renewal.cancel()

    async def _bury_or_give_back(self, message: NatsMessage, why: str) -> None:
        try:
            await self._bus.bury(message, why)
        except Unavailable:
            await _give_back(message, message.raw_message.metadata.num_delivered)


async def _give_back(message: NatsMessage, deliveries: int) -> None:
    with suppress(nats.errors.Error, OSError):
        await message.nack(delay=retry_delay(deliveries))


async def _renew(message: NatsMessage) -> None:
    """Keep a message from being delivered again while its handler works."""
    while True:
        await asyncio.sleep(ACK_WAIT_SECONDS / 3)
        with suppress(nats.errors.Error, OSError):
            await message.in_progress()


async def _answer(call_next: Callable[[Any], Awaitable[Any]], message: NatsMessage) -> Any:
    if (asker := message.raw_message.reply) and not asker.startswith("_INBOX"):
        # Who asks names the subject of the answer: it must not become an event that we are permitted to answer with.
        log.error("an answer is wanted on a subject that is no inbox", subject=message.raw_message.subject, reply=asker)
        raise IgnoredException
    try:
        return await call_next(message)
    except RatError as error:
        return _refusal(error)
    except (ValidationError, CallInvalid) as error:
        return _refusal(Invalid(reason(error)))
    except TRANSIENT as error:
        log.warning("cannot answer now", subject=message.raw_message.subject, error=repr(error))
        return _refusal(Unavailable(f"a server that is needed cannot be reached: {type(error).__name__}"))
    except Exception:
        log.exception("query failed", subject=message.raw_message.subject)
        return _refusal(Internal("internal error; the service's log has the details"))


def _refusal(error: RatError) -> Response:
    body = json.dumps({"message": error.message, "details": error.details}, default=str).encode()
    return Response(body, headers={ERROR_HEADER: error.code})


def _read_answer(query: Query[A], reply: Msg) -> A:
    code = (reply.headers or {}).get(ERROR_HEADER)
    if code is not None:
        refusal = json.loads(reply.data)
        raise BY_CODE.get(code, Internal)(refusal["message"], details=refusal["details"])
    adapter: TypeAdapter[A] = _adapter(query.answer)
    try:
        return adapter.validate_json(reply.data or b"null")
    except ValidationError as error:
        # Not the asker's mistake: nobody must take it for one.
        log.exception("an answer cannot be understood", subject=query.address())
        raise Internal(f"the answer to {query.address()} cannot be understood; the log has the details") from error


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(answer: Any) -> TypeAdapter[Any]:
    if answer not in _adapters:
        _adapters[answer] = TypeAdapter(answer)
    return _adapters[answer]


def reason(error: Exception) -> str:
    """What is wrong, field by field, in one line."""
    match error:
        case RatError():
            return error.message
        case CallInvalid():
            return reason(error.original_error)
        case ValidationError():
            return field_problems(error, whole="message")
        case _:
            return repr(error)


async def _decode_event(message: Any, _original: Any = None) -> Any:
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
        body["event_id"] = str(_event_id(message))
    if not body.get("occurred_at"):
        body["occurred_at"] = _stored_at(message)
    return body


def _event_id(message: Any) -> UUID:
    """What an event is called that does not say its id: by header, else by its place in the stream."""
    headers: Mapping[str, object] = message.raw_message.headers or {}
    for name in ("ce-id", "Nats-Msg-Id"):
        if name in headers:
            given = str(headers[name])
            try:
                return UUID(given)
            except ValueError:
                return derived_id(name, given)
    if message.raw_message.reply.startswith("$JS.ACK"):
        metadata = message.raw_message.metadata
        return derived_id(metadata.stream, metadata.sequence.stream)
    return derived_id(message.raw_message.subject, message.body)


def _stored_at(message: Any) -> str | None:
    if not message.raw_message.reply.startswith("$JS.ACK"):
        return None
    stored: datetime = message.raw_message.metadata.timestamp
    return stored.isoformat()
