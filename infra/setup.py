"""Preparation of the servers for the services: roles, schemas, streams, the bucket; any number of times.

Nothing here waits for a server that is not there: what its client raises then is raised as it is.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import asyncpg
import nats
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from shared.lakehouse.nessie.lakehouse import nessie_lakehouse
from shared.object_store import s3_client
from shared.pulling import inbox_prefix
from shared.settings import Settings
from shared.streams import ensure_streams
from shared.tls import nats_tls

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.literals import EventType
    from types_aiobotocore_s3.type_defs import FilterRuleTypeDef

ROLES: Final = ("catalog", "scheduler", "trigger", "ingest", "runner", "query", "gateway")
"""The services. Each is a role of PostgreSQL that owns the schema of its name, and a user of NATS."""

NESSIE: Final = "nessie"
"""The role of Nessie in PostgreSQL and in the object store."""

_LAKEHOUSE_READERS: Final = ("query", "catalog")

_TOLD: Final[Sequence["EventType"]] = (
    # Not `s3:ObjectCreated:*`, which a change of tags is as well.
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete",
    "s3:ObjectRemoved:DeleteMarkerCreated",
)
"""What the object store tells of landing zones."""


async def set_up_postgres(settings: Settings) -> None:
    """Make the database, and a role with a schema of its own for each service.

    `lakehouse` belongs to the runner and can be read by query and catalog. Nobody else reaches any schema but its own.
    Where the lakehouse is Nessie's, it has a role and a schema for what it stores.
    """
    connection = await _connect_to_database(settings)
    try:
        async with connection.transaction():
            # Several may start at once: the first one makes what the others then find.
            await connection.execute("select pg_advisory_xact_lock(hashtextextended('set up of the platform', 0))")
            for role in ROLES:
                await _make_role(connection, role, settings.postgres_password(role))
            await _make_schemas(connection)
            if settings.lakehouse == "nessie":
                await _make_role(connection, NESSIE, settings.postgres_password(NESSIE))
                await _make_schema(connection, NESSIE)
    except asyncpg.InterfaceError as error:
        # What the end of a transaction makes of whatever broke the connection.
        if connection.is_closed():
            raise ConnectionResetError("PostgreSQL went away while it was prepared") from error
        raise
    finally:
        await connection.close()


async def set_up_nats(settings: Settings) -> None:
    """Make the streams."""
    connection = await nats.connect(
        settings.nats_urls,
        user="infra",
        password=settings.nats_password("infra"),
        tls=nats_tls(settings),
        inbox_prefix=inbox_prefix("infra"),
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0.05,
        error_cb=_raised_anyway,
    )
    try:
        await ensure_streams(connection.jetstream(), settings.nats_replicas)
    finally:
        await connection.close()


async def set_up_object_store(settings: Settings) -> None:
    """Make the bucket, which keeps every version of an object."""
    async with _owner_of_bucket(settings) as client:
        try:
            await client.head_bucket(Bucket=settings.s3_bucket)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                raise
            await client.create_bucket(Bucket=settings.s3_bucket)
        await client.put_bucket_versioning(Bucket=settings.s3_bucket, VersioningConfiguration={"Status": "Enabled"})


async def set_up_notifications(settings: Settings, targets: Sequence[str]) -> None:
    """Let the store tell these targets, by ARN, what comes and goes in landing zones.

    A store that does not know a target refuses.
    """
    landing_zones: FilterRuleTypeDef = {"Name": "prefix", "Value": "*/landing/"}
    async with _owner_of_bucket(settings) as client:
        await client.put_bucket_notification_configuration(
            Bucket=settings.s3_bucket,
            NotificationConfiguration={
                "QueueConfigurations": [
                    {"QueueArn": target, "Events": _TOLD, "Filter": {"Key": {"FilterRules": [landing_zones]}}}
                    for target in targets
                ]
            },
        )


def _owner_of_bucket(settings: Settings) -> AbstractAsyncContextManager["S3Client"]:
    # Whoever calls repeats what fails, sooner than the client would.
    return s3_client(settings, "infra", AioConfig(retries={"total_max_attempts": 1}))


async def set_up_nessie(settings: Settings) -> None:
    """Give main its first entry, without which no branch would have anything in common with it."""
    async with nessie_lakehouse(settings, "runner") as lakehouse:
        await lakehouse.set_up()


async def _raised_anyway(_error: Exception) -> None:
    """The client would log what it raises as well."""


async def _connect_to_database(settings: Settings) -> asyncpg.Connection:
    password = settings.postgres_password("infra")
    try:
        return await asyncpg.connect(settings.postgres_url, user="infra", password=password)
    except asyncpg.InvalidCatalogNameError:
        pass
    address = urlsplit(settings.postgres_url)
    default = await asyncpg.connect(address._replace(path="/postgres").geturl(), user="infra", password=password)
    try:
        await default.execute(f'create database "{address.path.lstrip("/")}"')
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # somebody else was faster
    finally:
        await default.close()
    return await asyncpg.connect(settings.postgres_url, user="infra", password=password)


async def _make_role(connection: asyncpg.Connection, role: str, password: str) -> None:
    if not await connection.fetchval("select exists (select from pg_roles where rolname = $1)", role):
        await connection.execute(f'create role "{role}"')
    # Statements that define roles take no parameters.
    alter = await connection.fetchval(
        "select format('alter role %I login password %L', $1::text, $2::text)", role, password
    )
    await connection.execute(alter)


async def _make_schemas(connection: asyncpg.Connection) -> None:
    database = await connection.fetchval("select quote_ident(current_database())")
    readers = ", ".join(_LAKEHOUSE_READERS)
    await connection.execute(f"revoke all on database {database} from public")
    await connection.execute("revoke create on schema public from public")
    for role in ROLES:
        await _make_schema(connection, role)
    await connection.execute("create schema if not exists lakehouse authorization runner")
    await connection.execute(f"grant usage on schema lakehouse to {readers}")
    await connection.execute(f"grant select on all tables in schema lakehouse to {readers}")
    await connection.execute(
        f"alter default privileges for role runner in schema lakehouse grant select on tables to {readers}"
    )


async def _make_schema(connection: asyncpg.Connection, role: str) -> None:
    database = await connection.fetchval("select quote_ident(current_database())")
    await connection.execute(f"grant connect on database {database} to {role}")
    await connection.execute(f"create schema if not exists {role} authorization {role}")
    await connection.execute(f"alter role {role} in database {database} set search_path = {role}")
