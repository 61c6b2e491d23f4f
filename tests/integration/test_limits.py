"""No role may do more than its work, whoever holds its password or key: each is tried on the real servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import aioboto3
import asyncpg
import httpx
import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError
from nats.aio.client import Client

from contracts.messages import events, queries, utc_now
from contracts.names import Qualified
from contracts.namespaces import ListNamespaces, Namespaces
from contracts.runs import RunQueued
from infra.documents.events import declared
from infra.services import SERVICES
from infra.stacks.stack import Stack
from services.runner.keys import run_keys
from shared.bus import connect
from shared.errors import Forbidden
from shared.object_store import object_store
from shared.pulling import durable_name, inbox_prefix
from shared.settings import S3Key, Settings
from shared.streams import STREAMS, stream_of
from shared.tls import nats_tls
from tests.waiting import eventually

# The object store

RUN: Final = "3f1d9a52-6a0e-5c0b-8f0a-2d1f6a7c3e41"
PLACES: Final = {
    "code": "{ns}/pipelines/bronze/orders/pipeline.sql",
    "landing": "{ns}/landing/zone/file.csv",
    "table": "{ns}/silver/orders/data/file.parquet",
    "report": f"{{ns}}/runs/{RUN}/1.json",
    "log": f"{{ns}}/logs/{RUN}/1.jsonl",
    # What the patterns of a policy could take for something else.
    "landing like a table": "{ns}/landing/zone/bronze/orders/data/file.parquet",
    "landing like code": "{ns}/landing/zone/pipelines/bronze/orders/pipeline.sql",
    "landing like a report": f"{{ns}}/landing/zone/runs/{RUN}/1.json",
    "table called pipelines": "{ns}/silver/pipelines/data/file.parquet",
    "table called runs": "{ns}/gold/runs/metadata/1.json",
    "elsewhere": "{ns}/secrets/file",
}
READ: Final = {"get", "get version"}
CHANGE: Final = {"put", "put in parts", "delete"}
DESTROY: Final = {"delete version"}
LIST: Final = {"list", "list versions"}
EVERYTHING: Final = READ | CHANGE | DESTROY | LIST
LANDINGS: Final = [name for name in PLACES if name.startswith("landing")]
TABLES: Final = [name for name in PLACES if name.startswith("table")]

MAY: Final[dict[str, dict[str, set[str]]]] = {
    # It lists the code of a namespace, by a pattern that the names of such a table's files fit as well.
    "catalog": {"code": EVERYTHING, "report": READ, "log": READ, "table called pipelines": LIST},
    "ingest": dict.fromkeys(LANDINGS, EVERYTHING),
    "runner": {
        "code": READ,
        **dict.fromkeys(LANDINGS, READ | LIST),
        # A list of it is one of code as well, by its name.
        "landing like code": READ,
        **dict.fromkeys(TABLES, EVERYTHING),
        "report": READ | {"put", "put in parts"},
        "log": READ | {"put", "put in parts"},
    },
    "query": dict.fromkeys(TABLES, READ | LIST),
    "gateway": {},
    "uploader": dict.fromkeys(LANDINGS, READ | CHANGE | LIST),
    "infra": dict.fromkeys(PLACES, EVERYTHING),
}


@asynccontextmanager
async def s3(settings: Settings, role: str) -> AsyncIterator[Any]:
    async with s3_with(settings, settings.s3_key(role)) as client:
        yield client


@asynccontextmanager
async def s3_with(settings: Settings, key: S3Key) -> AsyncIterator[Any]:
    session = aioboto3.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key.get_secret_value(),
        aws_session_token=key.session_token.get_secret_value() if key.session_token else None,
        region_name=settings.s3_region,
    )
    config = AioConfig(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, signature_version="s3v4")
    async with session.client("s3", endpoint_url=settings.s3_endpoint, config=config) as client:
        yield client


async def is_allowed(attempt: Awaitable[Any]) -> bool:
    try:
        await attempt
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    return True


async def attempts(client: Any, bucket: str, key: str, version: str, doomed: str) -> dict[str, bool]:
    """What a key may do at a place, where a version lies, and another one that may be destroyed."""
    at = {"Bucket": bucket, "Key": key}
    folder = key.rpartition("/")[0] + "/"

    async def put_in_parts() -> None:
        upload = {**at, "UploadId": (await client.create_multipart_upload(**at))["UploadId"]}
        part = await client.upload_part(**upload, PartNumber=1, Body=b"part")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        await client.complete_multipart_upload(**upload, MultipartUpload=parts)

    tries: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: client.get_object(**at),
        "get version": lambda: client.get_object(**at, VersionId=version),
        "list": lambda: client.list_objects_v2(Bucket=bucket, Prefix=folder),
        "list versions": lambda: client.list_object_versions(Bucket=bucket, Prefix=folder),
        "put": lambda: client.put_object(**at, Body=b"changed"),
        "put in parts": put_in_parts,
        "delete version": lambda: client.delete_object(**at, VersionId=doomed),
        "delete": lambda: client.delete_object(**at),
    }
    return {name: await is_allowed(attempt()) for name, attempt in tries.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("role", MAY)
async def test_a_key_reaches_what_it_works_with_and_nothing_else(stack: Stack, role: str, place: str) -> None:
    bucket = stack.settings.s3_bucket
    key = PLACES[place].format(ns=f"n{uuid4().hex[:8]}")
    async with s3(stack.settings, "infra") as infra, s3(stack.settings, role) as client:
        doomed, version = [
            (await infra.put_object(Bucket=bucket, Key=key, Body=body))["VersionId"] for body in (b"first", b"second")
        ]

        allowed = await attempts(client, bucket, key, version, doomed)

    assert {name for name, is_possible in allowed.items() if is_possible} == MAY[role].get(place, set())


OF_A_RUN: Final[dict[str, set[str]]] = {
    "{ns}/silver/orders/1/data/file.parquet": READ | LIST | {"put", "put in parts"},
    "{ns}/silver/orders/1/metadata/1.json": READ | LIST | {"put", "put in parts"},
    "{ns}/silver/orders2/1/data/file.parquet": READ | LIST,
    "{ns}/gold/orders/1/data/file.parquet": READ | LIST,
    "{other}/silver/orders/1/data/file.parquet": READ | LIST,
    "{ns}/landing/zone/file.csv": READ | LIST,
    "{other}/landing/zone/file.csv": set(),
    "{ns}/pipelines/silver/orders/pipeline.sql": set(),
    "{other}/pipelines/silver/orders/pipeline.sql": set(),
    f"{{ns}}/runs/{RUN}/1.json": set(),
    f"{{ns}}/logs/{RUN}/1.jsonl": set(),
    "{ns}/secrets/file": set(),
}
"""What the key of a run that writes `{ns}.silver.orders` may do."""


async def key_of_a_run(settings: Settings, namespace: str) -> S3Key:
    async with run_keys(settings) as keys:
        made = await keys.writing(
            Qualified(namespace, "silver", "orders"), {namespace}, name="run-1", within=timedelta(hours=1)
        )
    assert made is not None
    assert timedelta(hours=1) < made.expires_at - utc_now() < timedelta(hours=2)
    return made.key


@pytest.mark.parametrize("place", OF_A_RUN)
async def test_the_key_of_a_run_reads_the_warehouse_and_writes_its_table(stack: Stack, place: str) -> None:
    bucket, namespace = stack.settings.s3_bucket, f"n{uuid4().hex[:8]}"
    key = place.format(ns=namespace, other=f"{namespace}-other")
    async with (
        s3(stack.settings, "infra") as infra,
        s3_with(stack.settings, await key_of_a_run(stack.settings, namespace)) as client,
    ):
        doomed, version = [
            (await infra.put_object(Bucket=bucket, Key=key, Body=body))["VersionId"] for body in (b"first", b"second")
        ]

        allowed = await attempts(client, bucket, key, version, doomed)

    assert {name for name, is_possible in allowed.items() if is_possible} == OF_A_RUN[place]


async def test_whoever_looks_at_code_writes_nothing(stack: Stack) -> None:
    bucket, namespace = stack.settings.s3_bucket, f"n{uuid4().hex[:8]}"
    key = f"{namespace}/silver/orders/1/data/file.parquet"
    async with run_keys(stack.settings) as keys:
        made = await keys.reading({namespace}, name="look", within=timedelta(minutes=1))
    assert made is not None

    async with s3(stack.settings, "infra") as infra, s3_with(stack.settings, made.key) as client:
        doomed, version = [
            (await infra.put_object(Bucket=bucket, Key=key, Body=body))["VersionId"] for body in (b"first", b"second")
        ]
        allowed = await attempts(client, bucket, key, version, doomed)

    assert {name for name, is_possible in allowed.items() if is_possible} == READ | LIST


@pytest.mark.parametrize("whose", ["run", *(role for role in MAY if role not in ("infra", "runner"))])
async def test_nobody_but_the_runner_makes_keys_of_runs(stack: Stack, whose: str) -> None:
    settings = stack.settings
    namespace = f"n{uuid4().hex[:8]}"
    key = await key_of_a_run(settings, namespace) if whose == "run" else settings.s3_key(whose)
    stolen = settings.model_copy(update={"s3_keys": {"runner": key}})

    async with run_keys(stolen) as keys:
        try:
            made = await keys.writing(
                Qualified("other", "silver", "orders"), {"other"}, name="run-2", within=timedelta(hours=1)
            )
        except Forbidden:
            return

    # MinIO gives such a key to whoever has one, with no more rights than they have themselves.
    assert made is not None
    async with s3_with(settings, made.key) as client:
        put = client.put_object(Bucket=settings.s3_bucket, Key="other/silver/orders/1/data/file.parquet", Body=b"")
        assert not await is_allowed(put)


@pytest.mark.parametrize("role", [role for role in MAY if role != "infra"])
async def test_a_key_cannot_change_the_bucket_or_see_all_of_it(stack: Stack, role: str) -> None:
    bucket = stack.settings.s3_bucket
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    async with s3(stack.settings, role) as client:
        tries = {
            "list all": client.list_objects_v2(Bucket=bucket),
            "list all versions": client.list_object_versions(Bucket=bucket),
            "suspend versions": client.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
            ),
            "expire": client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
            ),
            "open": client.put_bucket_policy(
                Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
            ),
            "make": client.create_bucket(Bucket=f"{bucket}-{uuid4().hex[:8]}"),
            "remove": client.delete_bucket(Bucket=bucket),
        }

        allowed = {name: await is_allowed(attempt) for name, attempt in tries.items()}

    assert not any(allowed.values()), allowed


@pytest.mark.parametrize(("role", "place"), [("query", "code"), ("uploader", "table"), ("catalog", "landing")])
async def test_an_address_opens_no_more_than_the_key_that_signed_it(stack: Stack, role: str, place: str) -> None:
    key = PLACES[place].format(ns="signed")
    async with object_store(stack.settings, "infra") as infra:
        await infra.put(key, b"secret")

    async with object_store(stack.settings, role) as objects, httpx.AsyncClient(trust_env=False) as http:
        got = await http.get(await objects.presign_get(key, timedelta(minutes=1)))
        put = await http.put(await objects.presign_put(key, timedelta(minutes=1)), content=b"changed")

    assert (got.status_code, put.status_code) == (403, 403)


# NATS

BUSES: Final = declared()
DURABLES: Final = [
    {"stream": stream_of(event.subject), "durable": durable_name(name, event.subject), "subject": event.subject}
    for name, bus in BUSES.items()
    for event in bus.heard
    if event.stored
]
OF_A_CONSUMER: Final = (
    "$JS.API.CONSUMER.CREATE.{stream}.{durable}",
    "$JS.API.CONSUMER.CREATE.{stream}.{durable}.{subject}",
    "$JS.API.CONSUMER.CREATE.{stream}.{durable}.audit.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{durable}",
    "$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
    "$JS.API.CONSUMER.DELETE.{stream}.{durable}",
    "$JS.API.CONSUMER.PAUSE.{stream}.{durable}",
    "$JS.API.CONSUMER.UNPIN.{stream}.{durable}",
    "$JS.API.CONSUMER.RESET.{stream}.{durable}",
    "$JS.API.CONSUMER.LEADER.STEPDOWN.{stream}.{durable}",
    "$JS.ACK.{stream}.{durable}.1.1.1.1.0",
)
OF_A_STREAM: Final = (
    # By a name in its body, this one changes the consumer of that name.
    "$JS.API.CONSUMER.CREATE.{stream}",
    "$JS.API.STREAM.CREATE.{stream}",
    "$JS.API.STREAM.UPDATE.{stream}",
    "$JS.API.STREAM.DELETE.{stream}",
    "$JS.API.STREAM.PURGE.{stream}",
    "$JS.API.STREAM.MSG.DELETE.{stream}",
    "$JS.API.STREAM.MSG.GET.{stream}",
    "$JS.API.STREAM.SNAPSHOT.{stream}",
    "$JS.API.STREAM.RESTORE.{stream}",
    "$JS.API.DIRECT.GET.{stream}",
)
OUTSIDERS: Final = ("publisher", "subscriber")
USERS: Final = (*SERVICES, *OUTSIDERS)


class User:
    """A user of NATS, and what the server says it may not do."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.refusals: list[str] = []

    async def note(self, error: Exception) -> None:
        self.refusals.append(str(error).lower())

    async def may_publish(self, subjects: Iterable[str]) -> set[str]:
        """Those of the subjects that the server does not refuse."""
        wanted = set(subjects)
        for subject in wanted:
            await self.client.publish(subject, b"{}")
        return await self._not_refused('publish to "', wanted)

    async def may_subscribe(self, subjects: Iterable[str]) -> set[str]:
        """Those of the subjects that the server does not refuse."""
        wanted = set(subjects)
        for subject in wanted:
            await self.client.subscribe(subject)
        return await self._not_refused('subscription to "', wanted)

    async def _not_refused(self, what: str, subjects: set[str]) -> set[str]:
        def left() -> set[str]:
            refused = "\n".join(self.refusals)
            return {subject for subject in subjects if f'{what}{subject.lower()}"' not in refused}

        await self.client.flush(timeout=60)
        with suppress(AssertionError):
            await eventually(lambda: not left())
        return left()


@asynccontextmanager
async def connected(settings: Settings, name: str, prefix: str | None = None) -> AsyncIterator[User]:
    user = User(Client())
    await user.client.connect(
        settings.nats_urls,
        user=name,
        password=settings.nats_password(name),
        tls=nats_tls(settings),
        inbox_prefix=prefix or inbox_prefix(name),
        allow_reconnect=False,
        # After a handshake that took too long nats-py may wait without an end.
        connect_timeout=20,
        error_cb=user.note,
    )
    try:
        yield user
    finally:
        await user.client.close()


def example(subject: str) -> str:
    """A subject that the pattern stands for."""
    return subject.replace("*", "x").replace(">", "x")


def own_words(name: str) -> set[str]:
    """The events and queries that a user is there to say and ask."""
    if name in OUTSIDERS:
        return {"run.requested"} if name == "publisher" else set()
    bus = BUSES[name]
    words = {example(message.subject) for message in (*bus.said, *bus.asked)}
    if name == "gateway":
        words |= {consumer["subject"] for consumer in DURABLES}  # it replays dead letters
    return words


@pytest.mark.parametrize("name", USERS)
async def test_a_user_says_no_event_and_asks_no_query_but_its_own(stack: Stack, name: str) -> None:
    words = {example(message.subject) for message in (*events(), *queries())}
    words |= {f"dead.{other}.run.finished" for other in SERVICES if other != name}
    foreign = words - own_words(name) | {"$SYS.REQ.SERVER.PING", "whatever"}

    async with connected(stack.settings, name) as user:
        assert await user.may_publish(foreign) == set()


@pytest.mark.parametrize("name", USERS)
async def test_a_user_touches_no_consumer_of_another_and_no_stream(stack: Stack, name: str) -> None:
    theirs = [consumer for consumer in DURABLES if not consumer["durable"].startswith(f"{name}-")]
    requests = {request.format(**consumer) for consumer in theirs for request in OF_A_CONSUMER}
    requests |= {request.format(stream=stream.name) for stream in STREAMS for request in OF_A_STREAM}
    if name == "gateway":
        requests -= {"$JS.API.STREAM.MSG.GET.DEAD", "$JS.API.STREAM.MSG.DELETE.DEAD"}

    async with connected(stack.settings, name) as user:
        assert await user.may_publish(requests) == set()


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_hears_no_inbox_and_no_query_but_its_own(stack: Stack, name: str) -> None:
    mine = {query.subject for query in BUSES[name].answered} | {"*.health"}
    heard = {event.subject for event in BUSES[name].heard if not event.stored}
    foreign = {query.subject for query in queries()} | {event.subject for event in events()} | {"event.>", "dead.>"}
    foreign |= {f"{inbox_prefix(user)}.>" for user in (*USERS, "infra") if user != name}
    foreign |= {">", "_INBOX.>", "*", "$JS.API.>", "$JS.ACK.>"}
    foreign -= mine | heard

    async with connected(stack.settings, name) as user:
        assert await user.may_subscribe(foreign) == set()


async def test_the_publisher_hears_its_acknowledgements_and_nothing_else(stack: Stack) -> None:
    foreign = {">", "*.>", "event.>", "run.>", "$JS.API.>", "$JS.ACK.>", "_INBOX_subscriber.>", "_INBOX_infra.>"}
    foreign |= {message.subject for message in (*events(), *queries())}
    foreign |= {f"{inbox_prefix(service)}.>" for service in SERVICES}

    async with connected(stack.settings, "publisher", "_INBOX") as user:
        assert await user.may_subscribe(foreign) == set()
        acknowledged = await user.client.jetstream().publish("event.order.paid", b"{}")

    assert acknowledged.stream == "OUTSIDE"


async def test_what_is_heard_in_an_inbox_of_everybody_is_nothing_of_the_services(stack: Stack) -> None:
    """They pull and ask by inboxes of their own: who may listen on `_INBOX.>` is outside."""
    catalog, runner = connect(stack.settings, "catalog"), connect(stack.settings, "runner")
    taker = runner.take(RunQueued)
    event = RunQueued(run_id=uuid4(), pipeline="default.bronze.x", pipeline_id=uuid4(), trigger="manual")
    async with connected(stack.settings, "publisher", "_INBOX") as outsider:
        overheard = await outsider.client.subscribe("_INBOX.>")
        await outsider.client.flush()

        async with catalog.running(), runner.running():
            await catalog.publish(event)
            while (lease := await taker.take()).event.event_id != event.event_id:
                await lease.acknowledge()
            await lease.acknowledge()

        await outsider.client.flush()
        heard = [await overheard.next_msg() for _ in range(overheard.pending_msgs)]
        # MinIO has no inboxes of its own: it hears there that what it told of the bucket is stored.
        assert [message.data for message in heard if json.loads(message.data).get("stream") != "BUCKET"] == []


async def test_the_subscriber_reads_all_events_and_keeps_its_place(stack: Stack) -> None:
    durable = f"reader-{uuid4().hex[:8]}"
    async with connected(stack.settings, "infra") as infra:
        await infra.client.jetstream().publish("event.order.paid", b'{"order": 1}')

    async with connected(stack.settings, "subscriber", "_INBOX") as user:
        jetstream = user.client.jetstream(timeout=60)
        for options in ({}, {"durable": durable}):
            reader = await jetstream.pull_subscribe("event.order.>", stream="OUTSIDE", **options)
            message = (await reader.fetch(1, timeout=60))[0]
            await message.ack_sync(timeout=60)
        await jetstream.delete_consumer("OUTSIDE", durable)

    assert user.refusals == []


async def test_an_answer_is_sent_to_an_inbox_only(stack: Stack) -> None:
    """Else whoever may ask could have a service say what the service may not."""
    catalog, gateway = connect(stack.settings, "catalog"), connect(stack.settings, "gateway")
    gateway.asks(ListNamespaces)
    asked = asyncio.Event()

    async def list_namespaces(query: ListNamespaces) -> Namespaces:
        asked.set()
        return Namespaces(namespaces=[], total=0)

    catalog.answer(ListNamespaces, list_namespaces)
    async with catalog.running(), gateway.running(), connected(stack.settings, "infra") as infra:
        overheard = await infra.client.subscribe("run.cancel")
        await infra.client.flush()

        await gateway.connection.publish(ListNamespaces.subject, b"{}", reply="run.cancel")
        await gateway.ask(ListNamespaces())

        assert asked.is_set()
        await infra.client.flush()
        assert overheard.pending_msgs == 0


# PostgreSQL

SCHEMAS: Final = (*SERVICES, "lakehouse", "public")
LAKEHOUSE_READERS: Final = ("catalog", "query")


@asynccontextmanager
async def database(settings: Settings, role: str) -> AsyncIterator[asyncpg.Connection]:
    password = settings.postgres_password(role)
    connection = await asyncpg.connect(settings.postgres_url, user=role, password=password)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def probes(stack: Stack) -> AsyncIterator[str]:
    """A table of this name in every schema, made by its owner."""
    name = f"probe_{uuid4().hex[:8]}"
    owners = {schema: {"lakehouse": "runner", "public": "infra"}.get(schema, schema) for schema in SCHEMAS}
    for schema, owner in owners.items():
        async with database(stack.settings, owner) as connection:
            await connection.execute(f"create table {schema}.{name} as select 1 as id")
    yield name
    for schema, owner in owners.items():
        async with database(stack.settings, owner) as connection:
            await connection.execute(f"drop table {schema}.{name}")


async def is_permitted(connection: asyncpg.Connection, statement: str) -> bool:
    """Whether a statement is; it is undone."""
    attempt = connection.transaction()
    await attempt.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await attempt.rollback()
    return True


@pytest.mark.parametrize("role", SERVICES)
async def test_a_role_reads_and_writes_its_own_schema_only(stack: Stack, probes: str, role: str) -> None:
    async with database(stack.settings, role) as connection:
        permitted = {
            (schema, verb)
            for schema in SCHEMAS
            for verb, statement in {
                "read": f"select id from {schema}.{probes}",
                "insert": f"insert into {schema}.{probes} values (2)",
                "update": f"update {schema}.{probes} set id = 3",
                "delete": f"delete from {schema}.{probes}",
                "truncate": f"truncate {schema}.{probes}",
                "drop": f"drop table {schema}.{probes}",
                "create": f"create table {schema}.another (id int)",
            }.items()
            if await is_permitted(connection, statement)
        }

    everything = {"read", "insert", "update", "delete", "truncate", "drop", "create"}
    own = [role, "lakehouse"] if role == "runner" else [role]
    expected = {(schema, verb) for schema in own for verb in everything}
    assert permitted == expected | ({("lakehouse", "read")} if role in LAKEHOUSE_READERS else set())


@pytest.mark.parametrize("role", SERVICES)
async def test_a_role_makes_nothing_beside_its_schema(stack: Stack, role: str) -> None:
    other = "catalog" if role != "catalog" else "runner"
    statements = [
        "create schema mine",
        "create role friend",
        "create temporary table notes (id int)",
        f"alter role {other} password 'mine'",
        f"alter role {role} superuser",
        f"grant {other} to {role}",
        f"set role {other}",
        "set role infra",
        "select rolpassword from pg_authid",
        "select pg_read_file('PG_VERSION')",
        "copy (select 1) to program 'true'",
        "select pg_reload_conf()",
    ]
    async with database(stack.settings, role) as connection:
        assert [statement for statement in statements if await is_permitted(connection, statement)] == []
        # These cannot be tried inside a transaction.
        for statement in ("create database mine", "drop database postgres", "alter system set work_mem = '1MB'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
