"""Dead letters can be listed, read and replayed; consumers say how far they are."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from contracts.runs import RunRequested
from infra.stacks.stack import Stack
from shared.bus import connect
from shared.consumers import consumers
from shared.dead_letters import DeadLetter, count_dead_letters, dead_letters, find_dead_letter, replay_dead_letter
from shared.errors import Invalid, NotFound
from shared.pulling import inbox_prefix
from tests.outside import nats_client
from tests.waiting import eventually


@pytest.fixture
async def jetstream(stack: Stack):
    connection = await nats_client(stack.settings, "gateway", inbox_prefix=inbox_prefix("gateway"))
    yield connection.jetstream()
    await connection.close()
    infra = await nats_client(stack.settings)
    with suppress(NotFoundError):
        await infra.jetstream().delete_consumer("EVENTS", "infra-run-requested")
    await infra.close()


def request(trigger: str) -> RunRequested:
    return RunRequested(pipeline="default.bronze.nothing", trigger=trigger)


async def letters_of(jetstream: JetStreamContext, event: RunRequested) -> list[DeadLetter]:
    return [letter async for letter in dead_letters(jetstream) if letter.event_id == str(event.event_id)]


async def test_a_refused_message_is_found_with_its_reason_and_heard_again_when_it_is_replayed(
    stack: Stack, jetstream: JetStreamContext
) -> None:
    event = request(f"event:{uuid4()}")
    heard: list[RunRequested] = []
    is_good = asyncio.Event()

    async def judge(message: RunRequested) -> None:
        if message.event_id != event.event_id:
            return
        if not is_good.is_set():
            raise Invalid("der Mond ist\n50 % grün")
        heard.append(message)

    bus = connect(stack.settings, "infra")
    bus.hear(RunRequested, judge)
    async with bus.running():
        await bus.publish(event)
        [letter] = await eventually(lambda: letters_of(jetstream, event))
        assert (letter.subject, letter.service, letter.reason) == (
            "run.requested",
            "infra",
            "der Mond ist 50 % grün",
        )
        assert RunRequested.model_validate_json(letter.body) == event
        assert await count_dead_letters(jetstream) > 0
        assert await find_dead_letter(jetstream, letter.id) == letter

        is_good.set()
        await replay_dead_letter(jetstream, letter.id)

        await eventually(lambda: heard == [event])
        assert await letters_of(jetstream, event) == []
        with pytest.raises(NotFound, match=f"no dead letter {letter.id}"):
            await replay_dead_letter(jetstream, letter.id)

        lag = {consumer.consumer: consumer for consumer in await consumers(jetstream)}["infra-run-requested"]
        assert (lag.stream, lag.subject, lag.pending) == ("EVENTS", "run.requested", 0)


async def test_two_replays_at_once_are_one(stack: Stack, jetstream: JetStreamContext) -> None:
    event = request("event:twice")
    heard: list[RunRequested] = []
    is_good = asyncio.Event()

    async def judge(message: RunRequested) -> None:
        if message.event_id != event.event_id:
            return
        if not is_good.is_set():
            raise Invalid("not yet")
        heard.append(message)

    bus = connect(stack.settings, "infra")
    bus.hear(RunRequested, judge)
    async with bus.running():
        await bus.publish(event)
        [letter] = await eventually(lambda: letters_of(jetstream, event))

        is_good.set()
        replays = (replay_dead_letter(jetstream, letter.id) for _ in range(5))
        ends = await asyncio.gather(*replays, return_exceptions=True)

        assert all(isinstance(end, NotFound | DeadLetter) for end in ends), ends

        await eventually(lambda: len(heard) > 0)
        assert await letters_of(jetstream, event) == []
        assert heard == [event]


async def test_a_dead_letter_that_does_not_exist_is_not_found(jetstream: JetStreamContext) -> None:
    with pytest.raises(NotFound, match="no dead letter 987654321"):
        await find_dead_letter(jetstream, 987654321)
