"""What only the distributed stack is: a cluster of three, and a store that tells of what lands in two ways."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from botocore.exceptions import ClientError

from contracts.landing import FileLanded
from infra.servers.minio import set_up_minio
from infra.servers.nats import NODES
from infra.setup import set_up_notifications
from infra.stacks.stack import Stack
from services.ingest.service import serve
from shared.lakehouse.connect import lakehouse
from shared.object_store import object_store
from shared.streams import STREAMS
from tests.landing import neighbours
from tests.marks import bus
from tests.outside import nats_client
from tests.stacks import StackIn
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def mortal(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A NATS cluster and MinIO that may be killed."""
    async with stack_in(tmp_path_factory.mktemp("mortal"), ["postgres", "nats", "object_store"]) as mortal:
        yield mortal


def zone() -> str:
    return f"default/landing/{uuid.uuid4().hex[:8]}"


async def test_all_servers_of_the_column_run(stack: Stack) -> None:
    assert stack.servers == ["postgres", *NODES, "minio", "nessie"]
    assert stack.ready == set(stack.servers)
    async with lakehouse(stack.settings, "query") as tables:
        assert isinstance(await tables.head(), str)
        assert isinstance(await tables.tables(), dict)


async def test_nessie_answers_as_soon_as_its_database_is_back(stack: Stack) -> None:
    async with lakehouse(stack.settings, "query") as tables:
        # Beside each other, so that its pool holds several connections.
        await asyncio.gather(*(tables.head() for _ in range(40)))

        await stack.kill("postgres")
        await stack.until_ready("postgres")

        await asyncio.gather(*(tables.head() for _ in range(40)))


async def test_every_stream_has_three_copies(stack: Stack) -> None:
    async with bus(stack) as client:
        for stream in STREAMS:
            found = await client.jetstream().stream_info(str(stream.name))
            assert found.config.num_replicas == 3
            assert found.cluster is not None
            assert len(found.cluster.replicas or []) == 2


@pytest.mark.parametrize("node", NODES)
async def test_the_cluster_goes_on_without_one_of_its_nodes(mortal: Stack, node: str) -> None:
    others = [url for name, url in zip(NODES, mortal.settings.nats_urls, strict=True) if name != node]
    async with mortal.away(node):
        client = await nats_client(mortal.settings.model_copy(update={"nats_urls": others}))

        async def published() -> bool:
            return bool((await client.jetstream().publish("event.mark", node.encode(), timeout=2)).seq)

        # The node may have led the stream: the others choose a new leader first.
        await eventually(published)
        await client.close()

    async with bus(mortal) as client:

        async def caught_up() -> bool:
            cluster = (await client.jetstream().stream_info("OUTSIDE")).cluster
            return cluster is not None and all(peer.current for peer in cluster.replicas or [])

        await eventually(caught_up)
        message = await client.jetstream().get_last_msg("OUTSIDE", "event.mark")
        assert message.data == node.encode()


async def test_what_lands_is_told_by_both_targets_under_one_version(stack: Stack) -> None:
    folder = zone()
    async with bus(stack) as client, object_store(stack.settings, "uploader") as uploader:
        told = await client.jetstream().subscribe("bucket.events", ordered_consumer=True)
        stored = await uploader.put(f"{folder}/a.csv", b"1")
        versions: Counter[str] = Counter()
        while versions[str(stored.version_id)] < 2:
            [record] = json.loads((await told.next_msg(timeout=60)).data)["Records"]
            versions[record["s3"]["object"]["versionId"]] += 1


async def test_a_file_that_is_told_twice_lands_once(stack: Stack) -> None:
    async with neighbours(stack.settings) as they, serve(stack.settings), bus(stack) as client:
        folder = await they.zone()
        told = await client.jetstream().subscribe("bucket.events", ordered_consumer=True)
        version = await they.put(folder, "a.csv")
        times = 0
        while times < 2:
            [record] = json.loads((await told.next_msg(timeout=60)).data)["Records"]
            times += record["s3"]["object"]["versionId"] == version

        async def all_are_heard() -> bool:
            consumer = await client.jetstream().consumer_info("BUCKET", "ingest-bucket-events")
            return consumer.num_pending == 0 and consumer.num_ack_pending == 0

        await eventually(all_are_heard)
        await they.landed(folder, "a.csv")
        assert len(they.said(FileLanded, folder)) == 1


async def test_what_is_put_while_nats_is_away_is_told_though_minio_is_killed_meanwhile(
    mortal: Stack, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--stack") == "containers":
        # Only the sweep finds it there.
        pytest.skip("MinIO queues behind its direct target, which waits for seconds where nobody refuses a connection")
    folder = zone()
    async with mortal.away("nats"):
        async with object_store(mortal.settings, "uploader") as uploader:
            for number in range(20):
                await uploader.put(f"{folder}/{number}.csv", b"1")
        await mortal.kill("minio")
        await mortal.until_ready("minio")

    missing = {f"rat/{folder}/{number}.csv" for number in range(20)}
    async with bus(mortal) as client:
        told = await client.jetstream().subscribe("bucket.events", ordered_consumer=True)
        while missing:
            missing.discard(json.loads((await told.next_msg(timeout=60)).data)["Key"])


async def test_a_target_that_the_store_does_not_know_is_refused(stack: Stack) -> None:
    with pytest.raises(ClientError, match="ARN"):
        await set_up_notifications(stack.settings, ["arn:minio:sqs::NOBODY:nats"])
    await set_up_minio(stack.settings)


async def test_what_is_set_up_can_be_set_up_again_with_other_keys(mortal: Stack) -> None:
    other = mortal.settings.s3_key("query").model_copy(update={"access_key_id": f"query-{uuid.uuid4().hex[:8]}"})
    settings = mortal.settings.model_copy(update={"s3_keys": mortal.settings.s3_keys | {"query": other}})

    await set_up_minio(settings)
    await set_up_minio(settings)

    async with object_store(settings, "query") as store:
        assert [found async for found in store.objects("default/bronze/nothing/")] == []
