"""The outbox: events written in the transaction that changes the state, and the relay that publishes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import structlog

from contracts.messages import Event
from shared.background import end, happens
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.errors import Unavailable
from shared.events import event_body, event_headers

log = structlog.get_logger()

BATCH: Final = 200
"""Events that one transaction of the relay publishes at the most."""
IDLE_SECONDS: Final = 5.0
"""How long the relay trusts that it is notified, before it looks by itself."""

_TABLE = """
create table if not exists outbox (
  id bigint generated always as identity primary key,
  subject text not null,
  stored boolean not null,
  headers jsonb not null,
  body text not null,
  created_at timestamptz not null default now()
);
create table if not exists outbox_turn (only_row boolean primary key default true check (only_row));
insert into outbox_turn values (true) on conflict do nothing;
"""


async def emit(connection: Connection, *events: Event) -> None:
    """Say these events if, and only if, the connection's transaction commits."""
    if not events:
        return
    await connection.execute(
        """
        with written as (
          insert into outbox (subject, stored, headers, body)
          select subject, stored, headers, body
          from unnest($1::text[], $2::boolean[], $3::jsonb[], $4::text[])
            with ordinality as event (subject, stored, headers, body, position)
          order by position
        )
        select pg_notify('outbox_' || current_schema, '')
        """,
        [event.address() for event in events],
        [event.stored for event in events],
        [event_headers(event) for event in events],
        [event_body(event).decode() for event in events],
    )


@asynccontextmanager
async def relay(pool: asyncpg.Pool, bus: Bus) -> AsyncIterator[None]:
    """Publish what is emitted, in order, for as long as the block lasts; any number of replicas may do so."""
    async with transaction(pool) as connection:
        await connection.execute("select pg_advisory_xact_lock(hashtextextended('outbox of ' || current_schema, 0))")
        await connection.execute(_TABLE)
    bus.check("postgres", lambda: pool.fetchval("select 1"))
    task = asyncio.create_task(_publish_for_ever(pool, bus))
    try:
        yield
    finally:
        await end({task})


async def _publish_for_ever(pool: asyncpg.Pool, bus: Bus) -> None:
    while True:
        try:
            await _publish_when_told(pool, bus)
        except (Unavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("outbox waits", service=bus.service, error=str(error))
            await asyncio.sleep(0.5)


async def _publish_when_told(pool: asyncpg.Pool, bus: Bus) -> None:
    told = asyncio.Event()
    async with pool.acquire() as listener:
        # The connection dies without a word while we wait: its end wakes us as well.
        listener.add_termination_listener(lambda *_: told.set())
        channel = f"outbox_{await listener.fetchval('select current_schema')}"

        def wake(*_: object) -> None:
            told.set()

        await listener.add_listener(channel, wake)
        try:
            while not listener.is_closed():
                told.clear()
                # What is emitted after a batch was read is told of after that, too.
                while await _publish_batch(pool, bus) == BATCH:
                    pass
                await happens(told, within_seconds=IDLE_SECONDS)
        finally:
            if not listener.is_closed():
                await listener.remove_listener(channel, wake)


async def _publish_batch(pool: asyncpg.Pool, bus: Bus) -> int:
    """Publish and delete the oldest events in one transaction, and say how many they were.

    Killed in between, the transaction is rolled back and they are published again, under the same `Nats-Msg-Id`.
    """
    async with transaction(pool) as connection:
        # One relay of a schema publishes at a time, so that order is kept; the others wait for their turn here.
        await connection.execute("select from outbox_turn for update")
        rows = await connection.fetch(
            "select id, subject, stored, headers, body from outbox order by id limit $1", BATCH
        )
        if not rows:
            return 0
        await asyncio.gather(
            *(bus.send(row["subject"], row["body"].encode(), row["headers"], stored=row["stored"]) for row in rows)
        )
        await connection.execute("delete from outbox where id = any($1)", [row["id"] for row in rows])
    return len(rows)
