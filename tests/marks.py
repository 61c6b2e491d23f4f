"""What is left on the servers of a stack, and found there again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from nats.aio.client import Client

from infra.stacks.stack import Stack
from shared.object_store import object_store
from tests.outside import nats_client


@asynccontextmanager
async def database(stack: Stack, role: str = "infra") -> AsyncIterator[asyncpg.Connection]:
    password = stack.settings.postgres_password(role)
    connection = await asyncpg.connect(stack.settings.postgres_url, user=role, password=password)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def bus(stack: Stack, user: str = "infra") -> AsyncIterator[Client]:
    async def ignore(_error: Exception) -> None: ...

    client = await nats_client(stack.settings, user, allow_reconnect=False, error_cb=ignore)
    try:
        yield client
    finally:
        await client.close()


async def leave_data(stack: Stack, mark: str) -> None:
    async with database(stack) as connection:
        await connection.execute("create table if not exists public.marks (mark text)")
        await connection.execute("insert into public.marks values ($1)", mark)
    async with bus(stack) as client:
        await client.jetstream().publish("event.mark", mark.encode())
    async with object_store(stack.settings, "infra") as store:
        await store.put(f"marks/{mark}", mark.encode())


async def find_data(stack: Stack, mark: str) -> bool:
    async with database(stack) as connection:
        in_postgres = await connection.fetchval("select exists (select from public.marks where mark = $1)", mark)
    async with bus(stack) as client:
        in_nats = (await client.jetstream().get_last_msg("OUTSIDE", "event.mark")).data == mark.encode()
    async with object_store(stack.settings, "infra") as store:
        in_bucket = await store.get(f"marks/{mark}") == mark.encode()
    return in_postgres and in_nats and in_bucket
