"""What lands in a zone is told on `bucket.events`, in the words of S3, and who may put it there."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aioboto3
import pytest
from botocore.exceptions import ClientError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from infra.stacks.stack import Stack
from shared.errors import Forbidden
from shared.object_store import MEBIBYTE, ObjectStore, object_store
from tests.outside import nats_client

_KEPT_SECONDS: Final = 300.0
"""How long NATS keeps the place of a test that asks for nothing."""


@pytest.fixture
async def uploader(stack: Stack) -> AsyncIterator[ObjectStore]:
    async with object_store(stack.settings, "uploader", part_bytes=5 * MEBIBYTE) as store:
        yield store


@pytest.fixture
async def ingest(stack: Stack) -> AsyncIterator[ObjectStore]:
    async with object_store(stack.settings, "ingest") as store:
        yield store


@pytest.fixture
def zone() -> str:
    return f"default/landing/{uuid.uuid4().hex[:8]}"


class Notifications:
    """What is told of one zone, each of it once: a store may tell twice."""

    def __init__(self, messages: Any, zone: str) -> None:
        self._messages = messages
        self._name = zone.rpartition("/")[2]
        self._told: set[tuple[str, str, str]] = set()

    async def next(self, within: float = 60.0) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while True:
                [message] = await self._messages.fetch(1, timeout=within)
                content: dict[str, Any] = json.loads(message.data)
                version = content["Records"][0]["s3"]["object"]["versionId"]
                told = (content["EventName"], content["Key"], version)
                if self._name in content["Key"] and told not in self._told:
                    self._told.add(told)
                    return content

    async def following(self, count: int, within: float = 60.0) -> list[dict[str, Any]]:
        return [await self.next(within) for _ in range(count)]


@asynccontextmanager
async def notifications(stack: Stack, zone: str) -> AsyncIterator[Notifications]:
    """What is told from now on of all keys that have the name of this zone in them."""
    client = await nats_client(stack.settings, reconnect_time_wait=1)
    try:
        # Pulled: pushing depends on what the nodes of a cluster know of who listens at another.
        from_now_on = ConsumerConfig(
            deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE, inactive_threshold=_KEPT_SECONDS
        )
        subscription = await client.jetstream().pull_subscribe("bucket.events", config=from_now_on)
        yield Notifications(subscription, zone)
    finally:
        await client.close()


async def test_a_put_is_told(stack: Stack, uploader: ObjectStore, zone: str) -> None:
    async with notifications(stack, zone) as told:
        stored = await uploader.put(f"{zone}/a b+ü.csv", b"id\n1\n")

        told_now = await told.next()

    record = told_now["Records"][0]
    assert told_now["EventName"] == "s3:ObjectCreated:Put"
    assert told_now["Key"] == f"rat/{zone}/a b+ü.csv"
    assert record["eventVersion"] == "2.0"
    assert record["eventName"].removeprefix("s3:") == "ObjectCreated:Put"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(record["eventTime"])) < timedelta(minutes=2)
    assert record["s3"]["bucket"]["name"] == "rat"
    assert record["s3"]["object"].items() >= {
        ("key", f"{zone.replace('/', '%2F')}%2Fa+b%2B%C3%BC.csv"),
        ("size", 5),
        ("eTag", stored.etag),
        ("versionId", stored.version_id),
    }


async def test_a_put_in_parts_is_told_once_when_it_is_complete(stack: Stack, uploader: ObjectStore, zone: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 4 * MEBIBYTE

    async with notifications(stack, zone) as told:
        stored = await uploader.put_stream(f"{zone}/large.csv", chunks())
        await uploader.put(f"{zone}/next.csv", b"")

        # What is told at nearly the same time may come in either order.
        large, following = sorted(await told.following(2), key=lambda event: str(event["Key"]))

    assert large["Records"][0]["s3"]["object"]["versionId"] == stored.version_id
    assert large["Records"][0]["s3"]["object"]["size"] == 12 * MEBIBYTE
    assert following["Key"] == f"rat/{zone}/next.csv"


async def test_each_version_and_each_deletion_is_told(
    stack: Stack, uploader: ObjectStore, ingest: ObjectStore, zone: str
) -> None:
    async with notifications(stack, zone) as told:
        first = await uploader.put(f"{zone}/a.csv", b"1")
        second = await uploader.put(f"{zone}/a.csv", b"22")
        created = await told.following(2)
        await uploader.delete(f"{zone}/a.csv")
        hidden = await told.next()
        await ingest.delete(f"{zone}/a.csv", first.version_id)
        removed = await told.next()

    assert {event["Records"][0]["s3"]["object"]["versionId"] for event in created} == {
        first.version_id,
        second.version_id,
    }
    assert hidden["EventName"] == "s3:ObjectRemoved:DeleteMarkerCreated"
    assert hidden["Key"] == f"rat/{zone}/a.csv"
    assert removed["EventName"] == "s3:ObjectRemoved:Delete"
    assert removed["Records"][0]["s3"]["object"]["versionId"] == first.version_id


async def test_what_shows_again_when_the_latest_version_is_removed_was_not_created(
    stack: Stack, uploader: ObjectStore, ingest: ObjectStore, zone: str
) -> None:
    async with notifications(stack, zone) as told:
        await uploader.put(f"{zone}/a.csv", b"1")
        await asyncio.sleep(1.1)  # the store keeps the time of a version in seconds
        latest = await uploader.put(f"{zone}/a.csv", b"2")
        await told.following(2)
        await ingest.delete(f"{zone}/a.csv", latest.version_id)
        await uploader.put(f"{zone}/b.csv", b"")
        events = await told.following(2)

    assert {(event["EventName"], event["Key"]) for event in events} == {
        ("s3:ObjectRemoved:Delete", f"rat/{zone}/a.csv"),
        ("s3:ObjectCreated:Put", f"rat/{zone}/b.csv"),
    }


async def test_only_landing_zones_are_told_of(stack: Stack, uploader: ObjectStore, zone: str) -> None:
    async with notifications(stack, zone) as told, object_store(stack.settings, "infra") as store:
        name = zone.rpartition("/")[2]
        for key in [
            f"default/pipelines/bronze/{name}/pipeline.sql",
            f"default/bronze/{name}/data/1",
            f"landing/{name}",
        ]:
            await store.put(key, b"")
        await uploader.put(f"{zone}/a.csv", b"")

        assert (await told.next())["Key"] == f"rat/{zone}/a.csv"


async def test_nothing_is_lost_while_nats_is_away(stack: Stack, uploader: ObjectStore, zone: str) -> None:
    await stack.kill("nats")
    keys = [f"{zone}/{number}.csv" for number in range(20)]
    for key in keys:
        await uploader.put(key, b"")
    await stack.until_ready("nats")

    client = await nats_client(stack.settings)
    try:
        told = await client.jetstream().subscribe("bucket.events")
        missing = {f"rat/{key}" for key in keys}
        while missing:
            missing.discard(json.loads((await told.next_msg(timeout=60)).data)["Key"])
    finally:
        await client.close()


async def test_an_uploader_reaches_landing_zones_and_nothing_else(
    stack: Stack, uploader: ObjectStore, zone: str
) -> None:
    code = f"default/pipelines/bronze/{uuid.uuid4().hex}/pipeline.sql"
    async with object_store(stack.settings, "catalog") as catalog:
        await catalog.put(code, b"select 1")

    await uploader.put(f"{zone}/a.csv", b"1")
    await uploader.put(f"another/landing/{uuid.uuid4().hex}/a.csv", b"1")
    assert await uploader.get(f"{zone}/a.csv") == b"1"
    assert [found.key async for found in uploader.objects(f"{zone}/")] == [f"{zone}/a.csv"]

    with pytest.raises(Forbidden):
        await uploader.get(code)
    with pytest.raises(Forbidden):
        await uploader.put(code, b"select 2")
    with pytest.raises(Forbidden):
        await uploader.delete(code)
    with pytest.raises(Forbidden):
        await uploader.copy(code, f"{zone}/stolen.sql")
    with pytest.raises(Forbidden):
        [found async for found in uploader.objects("default/pipelines/")]


async def test_an_uploader_cannot_destroy_what_a_run_may_be_about_to_read(uploader: ObjectStore, zone: str) -> None:
    stored = await uploader.put(f"{zone}/a.csv", b"1")
    await uploader.delete(f"{zone}/a.csv")

    with pytest.raises(Forbidden):
        await uploader.delete(f"{zone}/a.csv", stored.version_id)
    assert await uploader.get(f"{zone}/a.csv", stored.version_id) == b"1"


async def test_a_service_cannot_switch_versions_off(stack: Stack) -> None:
    key = stack.settings.s3_key("ingest")
    session = aioboto3.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key.get_secret_value(),
        region_name=stack.settings.s3_region,
    )
    async with session.client("s3", endpoint_url=stack.settings.s3_endpoint) as client:
        with pytest.raises(ClientError, match="AccessDenied"):
            await client.put_bucket_versioning(Bucket="rat", VersioningConfiguration={"Status": "Suspended"})


async def test_a_query_reads_tables_and_writes_nothing(stack: Stack) -> None:
    key = f"default/silver/{uuid.uuid4().hex}/data/a.parquet"
    async with object_store(stack.settings, "runner") as runner:
        await runner.put(key, b"1")

    async with object_store(stack.settings, "query") as query:
        assert await query.get(key) == b"1"
        with pytest.raises(Forbidden):
            await query.put(key, b"2")
        with pytest.raises(Forbidden):
            await query.delete(key)
