"""The outbox: events written in the transaction that changes the state, and the relay that publishes them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from contracts.messages import Event
from shared.background import background
from shared.bus import Bus
from shared.database import Connection, transaction
from shared.due import when_due
from shared.events import event_body, event_headers
from shared.failures import retry_delay

log = structlog.get_logger()

BATCH: Final = 200
"""Events that one transaction of the relay publishes at the most."""
IDLE_SECONDS: Final = 5.0
"""How long the relay trusts that it is notified, before it looks by itself."""

_SELDOM: Final = timedelta(hours=1)
"""How often an event is tried that could not be published for so many times: what hinders it may be mended."""

_TABLE = """
create table if not exists outbox (
  id bigint generated always as identity primary key,
  subject text not null,
  stored boolean not null,
  headers jsonb not null,
  body text not null,
  created_at timestamptz not null default now()
);
-- What could not be published while others could: how often it was tried, and from when on it is tried again.
alter table outbox add column if not exists tries int not null default 0;
alter table outbox add column if not exists again_at timestamptz;
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
        channel = await connection.fetchval("select 'outbox_' || current_schema")
    bus.check("postgres", lambda: pool.fetchval("select 1"))

    async def publish() -> None:
        # What is emitted after a batch was read is told of after that, too.
        while await _publish_batch(pool, bus) == BATCH:
            pass

    async def publish_when_told() -> None:
        await when_due(pool, channel, publish, at_most_seconds=IDLE_SECONDS)

    async with background(publish_when_told):
        yield


async def _publish_batch(pool: asyncpg.Pool, bus: Bus) -> int:
    """Publish and delete the oldest events in one transaction, and say how many they were.

    Killed in between, the transaction is rolled back and they are published again, under the same `Nats-Msg-Id`. What
    cannot be published while others can is put off, and kept.
    """
    async with transaction(pool) as connection:
        # One relay of a schema publishes at a time, so that order is kept; the others wait for their turn here. The
        # disk is not waited for: what is deleted here and comes back with a crash is published again, as above.
        await connection.execute("set local synchronous_commit = off; select from outbox_turn for update")
        rows = await connection.fetch(
            """
            with oldest as (
              delete from outbox
              where id in (
                select id from outbox where again_at is null or again_at <= now() order by id limit $1
              )
              returning id, subject, stored, headers, body, created_at, tries
            )
            select id, subject, stored, headers, body, created_at, tries from oldest order by id
            """,
            BATCH,
        )
        failures = await asyncio.gather(
            *(bus.send(row["subject"], row["body"].encode(), row["headers"], stored=row["stored"]) for row in rows),
            return_exceptions=True,
        )
        failed = [(row, failure) for row, failure in zip(rows, failures, strict=True) if failure is not None]
        if failed:
            await _put_off(connection, bus, failed, any_published=len(failed) < len(rows))
    return len(rows)


async def _put_off(
    connection: Connection, bus: Bus, failed: Sequence[tuple[asyncpg.Record, BaseException]], *, any_published: bool
) -> None:
    """Put events back that could not be published; raise why, if it seems that none can be.

    A try counts while others are published. What has failed so before waits for them, rather than for NATS.
    """
    for row, failure in failed:
        if not any_published and row["tries"] == 0:
            raise failure
    for row, failure in failed:
        tries = row["tries"] + any_published
        if tries == bus.fault_deliveries > row["tries"]:
            log.error(
                "an event cannot be published",
                service=bus.service,
                subject=row["subject"],
                event_id=row["headers"].get("ce-id"),
                outbox_id=row["id"],
                error=str(failure),
            )
        await _put_back(connection, row, tries, _pause(tries, bus.fault_deliveries))


def _pause(tries: int, many: int) -> timedelta:
    return _SELDOM if tries >= many else timedelta(seconds=retry_delay(tries))


async def _put_back(connection: Connection, row: asyncpg.Record, tries: int, pause: timedelta) -> None:
    await connection.execute(
        """
        insert into outbox (id, subject, stored, headers, body, created_at, tries, again_at)
        overriding system value
        values ($1, $2, $3, $4, $5, $6, $7, now() + $8::interval)
        """,
        row["id"],
        row["subject"],
        row["stored"],
        row["headers"],
        row["body"],
        row["created_at"],
        tries,
        pause,
    )
