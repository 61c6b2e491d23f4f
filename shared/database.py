"""A pool of connections to PostgreSQL for one service: its own role, its own schema, migrated."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

from shared.errors import Conflict, Invalid, Unavailable
from shared.settings import Settings

Connection: TypeAlias = PoolConnectionProxy
"""A connection of the pool, for as long as `transaction` or `pool.acquire()` lends it."""

_MIGRATION = re.compile(r"\d{4}_[a-z0-9_]+\.sql")

_UNREACHABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    # What asyncpg says when it goes on with a connection whose server died in the middle of an answer.
    asyncpg.InternalClientError,
)


@asynccontextmanager
async def database(
    settings: Settings,
    role: str,
    migrations: Path | None,
    *,
    schema: str | None = None,
    wait_seconds: float = 60,
) -> AsyncIterator[asyncpg.Pool]:
    """Log in as a role and give a pool whose tables are those of the role's schema.

    `migrations` is a folder of `NNNN_name.sql` files; those that were not applied yet are, in order and in one
    transaction. `schema` is named where it is not called like the role. JSON columns are Python values. Waits
    `wait_seconds` for a server that does not answer yet, then raises `Unavailable`. Later on a connection that
    is lost under `async with pool.acquire()`, or under one of the pool's own methods, is `Unavailable` too, and
    the next one is made anew. A statement that takes longer than a minute is a `TimeoutError`.
    """
    schema = schema or role
    async with Pool(
        settings.postgres_url,
        user=role,
        password=settings.postgres_password(role),
        timeout=10,
        command_timeout=60,
        server_settings={"search_path": schema, "application_name": f"rat {role}"},
        init=_speak_json,
        reset=_keep_session,
        # No floor: a pool with one logs a traceback for each attempt to restore it while the server is away.
        init_size=0,
        min_size=0,
        max_size=10,
        max_queries=50_000,
        max_inactive_connection_lifetime=300,
        loop=None,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
    ) as pool:
        await _await_server(pool, wait_seconds)
        if migrations is not None:
            await _migrate(pool, schema, migrations)
        yield pool


@asynccontextmanager
async def transaction(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Lend a connection inside a transaction: committed at the end of the block, rolled back when it raises.

    `Unavailable` from the end of the block leaves open whether the server committed.
    """
    async with pool.acquire() as connection, connection.transaction():
        yield connection


class Pool(asyncpg.Pool):
    """A pool that tells a lost server from a wrong statement."""

    def acquire(self, *, timeout: float | None = None) -> "_Acquired":
        """Lend a connection for the length of an `async with` block."""
        return _Acquired(self, timeout)


class _Acquired(PoolAcquireContext):
    async def __aenter__(self) -> Connection:
        try:
            return await super().__aenter__()
        except (OSError, *_UNREACHABLE) as error:
            raise _unavailable(error) from error

    async def __aexit__(self, *exc: object) -> None:
        error = exc[1]
        is_lost = self.connection is None or _is_lost(self.connection)
        try:
            await super().__aexit__(*exc)
        except (OSError, *_UNREACHABLE) as lost:
            raise _unavailable(lost) from lost
        # A block may meet other servers as well: an OSError is ours only if our connection is gone.
        if isinstance(error, _UNREACHABLE) or (is_lost and isinstance(error, OSError | asyncpg.InterfaceError)):
            raise _unavailable(error) from error


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # it left the block when it broke
        return True


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(f"PostgreSQL cannot be reached: {str(error) or type(error).__name__}")


async def _speak_json(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Leave a connection as it is when it is given back: no session state is set here, and a reset is a round trip."""


async def _await_server(pool: Pool, wait_seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + wait_seconds
    pause = 0.05
    while True:
        try:
            async with pool.acquire():
                return
        except Unavailable:
            if asyncio.get_running_loop().time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1)


async def _migrate(pool: Pool, schema: str, folder: Path) -> None:
    files = _migrations(folder)
    async with transaction(pool) as connection:
        # Replicas of a service start together: the first migrates, the others wait.
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('migrations of ' || $1, 0))", schema, timeout=600
        )
        await connection.execute(
            """
            create table if not exists schema_migrations (
              name text primary key,
              checksum text not null,
              applied_at timestamptz not null default now()
            )
            """
        )
        applied = {
            record["name"]: record["checksum"]
            for record in await connection.fetch("select name, checksum from schema_migrations")
        }
        # A file that is applied but not here is one of a newer release, which this one runs beside.
        newest = max(applied, default="")
        for name, text in files.items():
            checksum = hashlib.sha256(text.encode()).hexdigest()
            if name not in applied:
                if name < newest:
                    raise Conflict(f"migration {folder / name} comes before {newest}, which was applied already")
                await connection.execute(text, timeout=600)
                await connection.execute(
                    "insert into schema_migrations (name, checksum) values ($1, $2)", name, checksum
                )
            elif applied[name] != checksum:
                raise Conflict(f"migration {folder / name} was changed after it was applied to {schema!r}")


def _migrations(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.sql"))
    for file in files:
        if not _MIGRATION.fullmatch(file.name):
            raise Invalid(f"migration {file} is not called NNNN_name.sql")
    for file, following in pairwise(files):
        if file.name[:4] == following.name[:4]:
            raise Invalid(f"migrations {file.name} and {following.name} in {folder} have the same number")
    return {file.name: file.read_text() for file in files}
