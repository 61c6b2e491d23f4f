"""A message is acknowledged, tried again or buried by one set of rules; queries carry their errors."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from nats.js import JetStreamContext

from contracts.runs import CheckAttempt, FindRunOutcome, RunOutcome, RunQueued, RunRequested
from infra.stacks.stack import Stack
from shared import bus as bus_module
from shared.bus import Bus, connect
from shared.errors import Conflict, Internal, Invalid, NotFound, Unavailable
from shared.events import MAX_MESSAGE_BYTES, event_body
from shared.logs import correlation_id
from shared.settings import Settings
from shared.streams import STREAMS
from tests.buses import playing, playing_all
from tests.marks import bus
from tests.outside import nats_client
from tests.relaying import relay
from tests.stacks import StackIn
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def nats_stack(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("nats"), ["nats"]) as stack:
        yield stack


@pytest.fixture
async def nats_only(nats_stack: Stack) -> AsyncIterator[Stack]:
    """NATS as if nobody had used it yet."""
    yield nats_stack
    async with bus(nats_stack) as client:
        for stream in STREAMS:
            await eventually(lambda name=str(stream.name): empty(client.jetstream(), name))


async def empty(jetstream: JetStreamContext, stream: str) -> bool:
    for consumer in await jetstream.consumers_info(stream):
        await jetstream.delete_consumer(stream, consumer.name)
    return await jetstream.purge_stream(stream)


@pytest.fixture
def settings(nats_only: Stack) -> Settings:
    return nats_only.settings


@pytest.fixture
async def outside(settings: Settings) -> AsyncIterator[JetStreamContext]:
    """JetStream as somebody sees it who may do everything."""
    client = await nats_client(settings)
    yield client.jetstream()
    await client.close()


def request(trigger: str) -> RunRequested:
    return RunRequested(pipeline="default.bronze.orders", trigger=trigger)


def hearing(bus: Bus, handle: Callable[[RunRequested], Awaitable[None]]) -> list[RunRequested]:
    heard: list[RunRequested] = []

    async def hear(event: RunRequested) -> None:
        heard.append(event)
        await handle(event)

    bus.hear(RunRequested, hear)
    return heard


async def settled(outside: JetStreamContext) -> bool:
    """Whether catalog has nothing left to hear."""
    consumer = await outside.consumer_info("EVENTS", "catalog-run-requested")
    return bool(consumer.num_pending == 0 and consumer.num_ack_pending == 0)


async def fine(_event: RunRequested) -> None: ...


async def say(settings: Settings, event: RunRequested) -> None:
    """Request a run, as a trigger does."""
    trigger = connect(settings, "trigger")
    async with trigger.running():
        await trigger.publish(event)


async def test_an_event_is_heard_once_by_one_of_the_replicas(settings: Settings, outside: JetStreamContext) -> None:
    publisher, one, two = connect(settings, "trigger"), connect(settings, "catalog"), connect(settings, "catalog")
    heard = [hearing(one, fine), hearing(two, fine)]

    async with one.running(), two.running(), publisher.running():
        for number in range(20):
            await publisher.publish(request(str(number)))
        await eventually(lambda: len(heard[0]) + len(heard[1]) == 20)
        await eventually(lambda: settled(outside))

    assert sorted(int(event.trigger) for event in (*heard[0], *heard[1])) == list(range(20))


@pytest.mark.parametrize("error", [Unavailable("away"), Conflict("busy"), ConnectionResetError()], ids=repr)
async def test_what_another_try_may_mend_is_tried_again(
    settings: Settings, outside: JetStreamContext, error: Exception
) -> None:
    catalog = connect(settings, "catalog")

    async def fail_twice(_event: RunRequested) -> None:
        if len(heard) < 3:
            raise error

    heard = hearing(catalog, fail_twice)

    async with catalog.running():
        await say(settings, request("x"))
        await eventually(lambda: len(heard) == 3)
        await eventually(lambda: settled(outside))

    assert {event.event_id for event in heard} == {heard[0].event_id}


async def test_what_is_refused_for_good_is_buried_with_its_reason(
    settings: Settings, outside: JetStreamContext
) -> None:
    catalog = connect(settings, "catalog")

    async def refuse(_event: RunRequested) -> None:
        raise Invalid("no orders on sunday")

    hearing(catalog, refuse)
    event = request("x")

    async with catalog.running():
        await say(settings, event)
        await eventually(lambda: settled(outside))
        letter = await eventually(lambda: _letter(outside))

    assert letter.headers["rat-dead-reason"] == "no orders on sunday"
    assert letter.headers["rat-dead-subject"] == "run.requested"
    assert letter.headers["ce-id"] == str(event.event_id)
    assert RunRequested.model_validate_json(letter.data) == event


async def test_a_fault_of_ours_is_tried_a_few_times_and_then_buried(
    settings: Settings, outside: JetStreamContext
) -> None:
    catalog = connect(settings, "catalog")
    catalog.fault_deliveries = 3

    async def stumble(_event: RunRequested) -> None:
        raise ZeroDivisionError

    heard = hearing(catalog, stumble)

    async with catalog.running():
        await say(settings, request("x"))
        await eventually(lambda: _letter(outside))

    assert len(heard) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"pipeline": "default.brown.orders", "trigger": "x"}', "pipeline"),
        (b'{"pipeline": "default.bronze.orders"}', "trigger"),
        (b"[1, 2]", "dictionary"),
        (b"nonsense", "dictionary"),
        (b"[" * 100_000, "dictionary"),
        (
            b'{"pipeline": "default.bronze.orders", "trigger": "x", "parameters": {"a": %s}}' % (b"[" * 90 + b"]" * 90),
            "50",
        ),
    ],
)
async def test_a_message_that_cannot_be_understood_is_buried_and_the_field_named(
    settings: Settings, outside: JetStreamContext, body: bytes, field: str
) -> None:
    catalog = connect(settings, "catalog")
    heard = hearing(catalog, fine)

    async with catalog.running():
        await outside.publish("run.requested", body)
        letter = await eventually(lambda: _letter(outside))

    assert field in letter.headers["rat-dead-reason"]
    assert heard == []


async def test_headers_that_are_no_ascii_do_not_keep_a_message_from_being_handled_or_buried(
    settings: Settings, outside: JetStreamContext
) -> None:
    catalog = connect(settings, "catalog")
    heard = hearing(catalog, fine)
    headers = {"Nats-Msg-Id": "grün", "correlation_id": "grün", "x-colour": "grün"}
    good = json.dumps({"pipeline": "default.bronze.orders", "trigger": "x"}).encode()

    async with catalog.running():
        await outside.publish("run.requested", good, headers=headers)
        await outside.publish("run.requested", b"{}", headers={**headers, "Nats-Msg-Id": "blau ü"})
        letter = await eventually(lambda: _letter(outside))
        await eventually(lambda: len(heard) == 1)

    assert "pipeline" in letter.headers["rat-dead-reason"]


async def _letter(outside: JetStreamContext) -> Any:
    return await outside.get_last_msg("DEAD", "dead.catalog.run.requested")


async def test_an_outsiders_event_without_an_id_gets_the_same_one_at_every_delivery(
    settings: Settings, outside: JetStreamContext
) -> None:
    catalog = connect(settings, "catalog")

    async def fail_once(_event: RunRequested) -> None:
        if len(heard) == 1:
            raise Unavailable("away")

    heard = hearing(catalog, fail_once)
    body = json.dumps({"pipeline": "default.bronze.orders", "trigger": "event:x"}).encode()

    async with catalog.running():
        key = uuid4()
        await outside.publish("run.requested", body, headers={"Nats-Msg-Id": str(key)})
        await eventually(lambda: len(heard) == 2)
        await outside.publish("run.requested", body)
        await eventually(lambda: len(heard) == 3)

    assert heard[0].event_id == heard[1].event_id == key
    assert heard[2].event_id != key
    assert heard[0].occurred_at == heard[1].occurred_at


async def test_a_taken_message_is_held_until_it_is_acknowledged_or_its_lease_runs_out(settings: Settings) -> None:
    brief = settings.model_copy(update={"run_lease_seconds": 1.0})
    catalog, one, two = connect(settings, "catalog"), connect(brief, "runner"), connect(brief, "runner")
    first, second = one.take(RunQueued), two.take(RunQueued)
    event = RunQueued(run_id=uuid4(), pipeline="default.bronze.orders", pipeline_id=uuid4(), trigger="manual")

    async with catalog.running(), one.running(), two.running():
        await catalog.publish(event)
        lease = await first.take()
        again = await second.take()
        await again.give_back(0)
        third = await second.take()
        await third.acknowledge()

    assert lease.event == again.event == third.event == event
    assert len({lease.delivery, again.delivery, third.delivery}) == 3


async def test_a_lease_is_as_long_as_the_newest_start_says(settings: Settings) -> None:
    event = RunQueued(run_id=uuid4(), pipeline="default.bronze.orders", pipeline_id=uuid4(), trigger="manual")
    catalog, patient = connect(settings, "catalog"), connect(settings, "runner")
    first = patient.take(RunQueued)
    async with catalog.running(), patient.running():
        await catalog.publish(event)
        await (await first.take()).give_back(0)

    brief = connect(settings.model_copy(update={"run_lease_seconds": 0.5}), "runner")
    taker = brief.take(RunQueued)
    async with brief.running(), asyncio.timeout(60):
        await taker.take()
        again = await taker.take()

    assert again.event == event


# Queries


@pytest.fixture
async def asker(settings: Settings) -> AsyncIterator[Bus]:
    """Somebody who asks a catalog that knows of one run."""
    catalog, asker = connect(settings, "catalog"), playing_all(settings)

    async def find(query: FindRunOutcome) -> RunOutcome:
        if query.run_id == UUID(int=0):
            raise NotFound("no such run", details={"asked": str(query.run_id)})
        if query.run_id == UUID(int=1):
            raise ZeroDivisionError("a secret")
        return RunOutcome(status=None, is_known=correlation_id.get() == "request-7")

    catalog.answer(FindRunOutcome, find)
    async with catalog.running(), asker.running():
        yield asker


async def test_an_answer_comes_back_and_the_correlation_id_goes_along(asker: Bus) -> None:
    correlation_id.set("request-7")

    assert (await asker.ask(FindRunOutcome(run_id=uuid4()))).is_known


async def test_an_error_reaches_the_asker_as_the_same_class(asker: Bus) -> None:
    with pytest.raises(NotFound, match="no such run") as raised:
        await asker.ask(FindRunOutcome(run_id=UUID(int=0)))

    assert raised.value.details == {"asked": str(UUID(int=0))}


async def test_a_fault_of_the_answering_service_tells_no_secret(asker: Bus) -> None:
    with pytest.raises(Exception, match="internal error") as raised:
        await asker.ask(FindRunOutcome(run_id=UUID(int=1)))

    assert "secret" not in str(raised.value)


async def test_a_question_that_nobody_answers_is_unavailable(asker: Bus) -> None:
    with pytest.raises(Unavailable, match="no catalog service is running"):
        await asker.ask(CheckAttempt(run_id=uuid4(), attempt=1))


async def test_what_a_service_does_not_declare_it_does_not_ask(settings: Settings) -> None:
    query = playing(settings, "query")

    async with query.running():
        with pytest.raises(Internal, match=r"query asks catalog\.find_run_outcome, but does not declare"):
            await query.ask(FindRunOutcome(run_id=uuid4()))


async def test_an_answer_that_cannot_be_understood_is_no_mistake_of_the_asker(settings: Settings) -> None:
    asker = playing_all(settings)
    odd = await nats_client(settings)

    async def answer(message: Any) -> None:
        await message.respond(b'{"status": "odd"}')

    await odd.subscribe("catalog.find_run_outcome", cb=answer)
    await odd.flush()
    async with asker.running():
        with pytest.raises(Internal, match=r"catalog\.find_run_outcome"):
            await asker.ask(FindRunOutcome(run_id=uuid4()))
    await odd.close()


async def test_many_questions_are_answered_at_once(asker: Bus) -> None:
    answers = await asyncio.gather(*(asker.ask(FindRunOutcome(run_id=uuid4())) for _ in range(100)))

    assert len(answers) == 100


async def test_no_message_is_larger_than_a_message_may_be(asker: Bus) -> None:
    with pytest.raises(Invalid, match=str(MAX_MESSAGE_BYTES)):
        await asker.publish(
            RunRequested(pipeline="default.bronze.a", trigger="x", parameters={"text": "x" * MAX_MESSAGE_BYTES})
        )


# NATS away


async def test_everything_goes_on_when_nats_is_back(nats_only: Stack) -> None:
    catalog, trigger = (connect(nats_only.settings, name) for name in ("catalog", "trigger"))
    heard = hearing(catalog, fine)
    returns: list[bool] = []
    catalog.on_reconnect.append(lambda: returns.append(True))

    async with catalog.running(), trigger.running():
        await trigger.publish(request("before"))
        await nats_only.kill("nats")
        await nats_only.until_ready("nats")

        async def published() -> bool:
            await trigger.publish(request("after"))
            return True

        await eventually(published)
        await eventually(lambda: {event.trigger for event in heard} == {"before", "after"})

    assert returns


async def test_a_connection_that_has_gone_silent_is_made_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "PING_SECONDS", 0.2)
    address = urlsplit(settings.nats_urls[0])
    assert address.hostname is not None
    assert address.port is not None
    async with relay(address.hostname, address.port) as (between, port):
        url = address._replace(netloc=f"127.0.0.1:{port}").geturl()
        catalog = connect(settings.model_copy(update={"nats_urls": [url]}), "catalog")
        heard, trigger = hearing(catalog, fine), connect(settings, "trigger")
        async with catalog.running(), trigger.running():
            between.silence()
            await trigger.publish(request("meanwhile"))

            # Python waits for the end of a TLS connection for half a minute.
            await eventually(lambda: [event.trigger for event in heard] == ["meanwhile"], within=90)


async def test_who_leaves_while_nats_is_away_looks_for_it_no_longer(nats_only: Stack) -> None:
    catalog = connect(nats_only.settings, "catalog")

    async with AsyncExitStack() as until_it_has_left:
        async with catalog.running():
            await until_it_has_left.enter_async_context(nats_only.away("nats"))
            connection = catalog.connection
            await eventually(lambda: connection.is_reconnecting)
            looking = connection._reconnection_task
            await catalog.send("run.requested", b"nobody takes this", {}, stored=False)

        assert connection.is_closed
        assert looking is not None
        assert looking.done()


async def test_what_nobody_reads_any_more_does_not_hold_up_who_leaves(settings: Settings) -> None:
    catalog, infra = connect(settings, "catalog"), connect(settings, "infra")

    async with infra.running():
        async with catalog.running():
            subscription = await catalog.connection.subscribe("_INBOX_catalog.unread")

            async def something_waits() -> bool:
                # Until then the node of the one has not heard of the other's, and drops it.
                await infra.connection.publish("_INBOX_catalog.unread", b"")
                return subscription.pending_msgs > 0

            await eventually(something_waits)
            began = time.monotonic()

        assert time.monotonic() - began < 20


async def test_events_are_heard_again_after_their_stream_was_deleted(
    settings: Settings, outside: JetStreamContext
) -> None:
    catalog = connect(settings, "catalog")
    heard = hearing(catalog, fine)
    async with catalog.running():
        await outside.publish("run.requested", event_body(request("before")))
        await eventually(lambda: len(heard) == 1)

        await outside.delete_stream("EVENTS")

        await eventually(lambda: outside.publish("run.requested", event_body(request("after"))))
        await eventually(lambda: [event.trigger for event in heard] == ["before", "after"])


async def test_waiting_for_a_consumer_that_is_gone_costs_nothing(settings: Settings, outside: JetStreamContext) -> None:
    catalog = connect(settings, "catalog")
    hearing(catalog, fine)
    async with catalog.running():
        used = time.process_time()
        await outside.delete_consumer("EVENTS", "catalog-run-requested")
        await eventually(lambda: settled(outside), pause=0.2)

    assert time.process_time() - used < 2
