"""What is emitted is published if, and only if, its transaction commits: in order, whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg
import pytest
from nats.js import JetStreamContext
from structlog.testing import capture_logs

from contracts.runs import RunRequested
from infra.stacks.stack import Stack
from shared.bus import Bus, connect
from shared.database import database, transaction
from shared.outbox import emit, relay
from shared.settings import Settings
from tests.outside import nats_client
from tests.stacks import StackIn
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def two_servers(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("outbox"), ["nats", "postgres"]) as stack:
        yield stack


def request(number: int) -> RunRequested:
    return RunRequested(pipeline="default.bronze.orders", trigger=str(number))


@asynccontextmanager
async def relaying(settings: Settings) -> AsyncIterator[tuple[asyncpg.Pool, Bus]]:
    bus = connect(settings, "scheduler")
    async with database(settings, "scheduler", None) as db, bus.running(), relay(db, bus):
        yield db, bus


async def say(db: asyncpg.Pool, *numbers: int) -> None:
    async with transaction(db) as connection:
        await emit(connection, *(request(number) for number in numbers))


async def say_and_fail(db: asyncpg.Pool, number: int) -> None:
    async with transaction(db) as connection:
        await emit(connection, request(number))
        raise ZeroDivisionError


class Ear:
    """Hears every request from now on, in the order of the stream."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription
        self.numbers: list[int] = []

    async def heard(self, *numbers: int) -> bool:
        async for message in self._subscription.messages:
            self.numbers.append(int(RunRequested.model_validate_json(message.data).trigger))
            if len(self.numbers) >= len(numbers):
                break
        return self.numbers == list(numbers)


async def infra(settings: Settings) -> JetStreamContext:
    connection = await nats_client(settings, allow_reconnect=False)
    return connection.jetstream()


async def ear(settings: Settings) -> Ear:
    jetstream = await infra(settings)
    return Ear(await jetstream.subscribe("run.requested", ordered_consumer=True, deliver_policy="new"))


async def test_events_are_published_in_order_once_they_are_committed(two_servers: Stack) -> None:
    listening = await ear(two_servers.settings)

    async with relaying(two_servers.settings) as (db, _):
        await say(db, 1, 2, 3)
        with pytest.raises(ZeroDivisionError):
            await say_and_fail(db, 99)
        await say(db, 4, 5)

        assert await listening.heard(1, 2, 3, 4, 5)
        assert await eventually(lambda: _is_empty(db))


async def test_two_relays_publish_each_event_once_and_in_order(two_servers: Stack) -> None:
    listening = await ear(two_servers.settings)

    async with relaying(two_servers.settings) as (db, _), relaying(two_servers.settings):
        for number in range(50):
            await say(db, number)

        assert await listening.heard(*range(50))


async def test_what_was_emitted_while_nats_was_away_is_published_when_it_is_back(two_servers: Stack) -> None:
    async with relaying(two_servers.settings) as (db, _):
        await two_servers.kill("nats")
        await asyncio.gather(*(say(db, number) for number in range(10)))
        await two_servers.until_ready("nats")
        await eventually(lambda: _is_empty(db))

        last = await (await infra(two_servers.settings)).get_last_msg("EVENTS", "run.requested")
        assert int(RunRequested.model_validate_json(last.data).trigger) in range(10)


async def test_the_relay_goes_on_after_postgres_was_killed(two_servers: Stack) -> None:
    listening = await ear(two_servers.settings)

    async with relaying(two_servers.settings) as (db, _):
        await two_servers.kill("postgres")
        await two_servers.until_ready("postgres")

        async def said() -> bool:
            await say(db, 7)
            return True

        await eventually(said)
        assert await listening.heard(7)


@pytest.mark.parametrize(
    ("subject", "body"),
    [("run.started", "not permitted"), ("run.requested", "x" * 2_000_000)],
    ids=["refused", "large"],
)
async def test_what_cannot_be_published_is_told_once_and_kept_and_holds_up_no_other(
    two_servers: Stack, subject: str, body: str
) -> None:
    listening = await ear(two_servers.settings)

    async with relaying(two_servers.settings) as (db, bus):
        bus.fault_deliveries = 2
        with capture_logs() as said:
            await db.execute(
                "insert into outbox (subject, stored, headers, body) values ($1, true, $2, $3)",
                subject,
                {"ce-id": "of this one"},
                body,
            )
            for number in count(1):
                await say(db, number)
                assert await listening.heard(*range(1, number + 1))
                if await db.fetchval(
                    "select again_at > now() + interval '30 minutes' from outbox where body = $1", body
                ):
                    break

        told = [one for one in said if one["event"] == "an event cannot be published"]
        assert [(one["subject"], one["event_id"]) for one in told] == [(subject, "of this one")]
        assert await db.fetchval("delete from outbox where body = $1 returning tries", body) == 2


async def _is_empty(db: asyncpg.Pool) -> bool:
    return bool(await db.fetchval("select count(*) = 0 from outbox"))
