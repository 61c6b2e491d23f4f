"""The bucket keeps versions, honours conditions and moves large objects in parts."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest

from infra.stacks.stack import Stack
from shared.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from shared.object_store import MEBIBYTE, ObjectStore, object_store
from shared.settings import S3Key
from tests.stacks import StackIn


@pytest.fixture
async def store(stack: Stack) -> AsyncIterator[ObjectStore]:
    # Parts as small as S3 allows, so that a test need not move gigabytes.
    async with object_store(stack.settings, "infra", part_bytes=5 * MEBIBYTE, largest_copy_bytes=6 * MEBIBYTE) as store:
        yield store


@pytest.fixture
def folder() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def noise(size: int) -> bytes:
    return hashlib.shake_128(b"noise").digest(size)


async def test_an_object_is_read_as_it_was_written(store: ObjectStore, folder: str) -> None:
    stored = await store.put(f"{folder}/a b+ü.txt", b"hello", content_type="text/plain")

    found = await store.head(f"{folder}/a b+ü.txt")

    assert await store.get(f"{folder}/a b+ü.txt") == b"hello"
    assert (found.version_id, found.etag, found.size) == (stored.version_id, stored.etag, 5)
    assert found.content_type == "text/plain"


async def test_an_empty_object_is_an_object(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}/empty", b"")

    assert await store.get(f"{folder}/empty") == b""
    assert (await store.head(f"{folder}/empty")).size == 0


async def test_each_version_stays_readable(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}/a", b"1")
    second = await store.put(f"{folder}/a", b"2")
    await store.delete(f"{folder}/a")

    assert await store.get(f"{folder}/a", first.version_id) == b"1"
    assert await store.get(f"{folder}/a", second.version_id) == b"2"
    assert (await store.head(f"{folder}/a", first.version_id)).etag == first.etag
    with pytest.raises(NotFound, match=f"no object '{folder}/a'"):
        await store.get(f"{folder}/a")


async def test_versions_are_listed_newest_first(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}/a", b"1")
    second = await store.put(f"{folder}/a", b"22")
    other = await store.put(f"{folder}/b", b"3")
    await store.delete(f"{folder}/a")

    versions = [version async for version in store.versions(f"{folder}/")]

    assert [(v.key, v.is_deletion, v.is_latest, v.size) for v in versions] == [
        (f"{folder}/a", True, True, 0),
        (f"{folder}/a", False, False, 2),
        (f"{folder}/a", False, False, 1),
        (f"{folder}/b", False, True, 1),
    ]
    assert [v.version_id for v in versions[1:]] == [second.version_id, first.version_id, other.version_id]


async def test_a_deleted_version_is_gone(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}/a", b"1")
    second = await store.put(f"{folder}/a", b"2")

    await store.delete(f"{folder}/a", second.version_id)

    assert await store.get(f"{folder}/a") == b"1"
    with pytest.raises(NotFound, match=f"no version '{second.version_id}'"):
        await store.get(f"{folder}/a", second.version_id)
    with pytest.raises(NotFound):
        await store.head(f"{folder}/a", second.version_id)
    assert (await store.head(f"{folder}/a")).version_id == first.version_id


async def test_deleting_what_is_not_there_is_fine(store: ObjectStore, folder: str) -> None:
    await store.delete(f"{folder}/nothing")


async def test_what_is_missing_is_not_found(store: ObjectStore, folder: str) -> None:
    for attempt in (
        store.get(f"{folder}/a"),
        store.head(f"{folder}/a"),
        store.copy(f"{folder}/a", f"{folder}/b"),
    ):
        with pytest.raises(NotFound, match=f"{folder}/a"):
            await attempt


async def test_a_condition_is_kept(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}/a", b"1", if_none_match="*")
    second = await store.put(f"{folder}/a", b"2", if_match=first.etag)

    with pytest.raises(Conflict):
        await store.put(f"{folder}/a", b"3", if_none_match="*")
    with pytest.raises(Conflict):
        await store.put(f"{folder}/a", b"3", if_match=first.etag)

    assert (await store.head(f"{folder}/a")).version_id == second.version_id


@pytest.mark.parametrize("size", [0, 10, 5 * MEBIBYTE, 12 * MEBIBYTE + 1])
async def test_a_stream_is_stored_whole(store: ObjectStore, folder: str, size: int) -> None:
    content = noise(size)

    stored = await store.put_stream(f"{folder}/a", chunks(content, 700_001), content_type="text/csv")

    found = await store.head(f"{folder}/a")
    assert b"".join([chunk async for chunk in store.stream(f"{folder}/a")]) == content
    assert (found.size, found.content_type) == (size, "text/csv")
    assert (stored.size, stored.version_id, stored.etag) == (size, found.version_id, found.etag)


async def test_a_stream_that_breaks_or_is_too_long_leaves_nothing(store: ObjectStore, folder: str) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield noise(6 * MEBIBYTE)
        raise RuntimeError("the uploader went away")

    with pytest.raises(RuntimeError, match="went away"):
        await store.put_stream(f"{folder}/a", breaking())
    with pytest.raises(Invalid, match="larger than 7340032 bytes"):
        await store.put_stream(f"{folder}/a", chunks(noise(8 * MEBIBYTE), MEBIBYTE), limit_bytes=7 * MEBIBYTE)

    assert [version async for version in store.versions(folder)] == []


@pytest.mark.parametrize("size", [10, 13 * MEBIBYTE])
async def test_a_copy_is_of_the_version_asked_for(store: ObjectStore, folder: str, size: int) -> None:
    content = noise(size)
    first = await store.put(f"{folder}/a b", content, content_type="text/csv")
    await store.put(f"{folder}/a b", b"newer")

    copied = await store.copy(f"{folder}/a b", f"{folder}/b", version_id=first.version_id)

    found = await store.head(f"{folder}/b")
    assert await store.get(f"{folder}/b") == content
    assert (copied.version_id, copied.size) == (found.version_id, size)
    assert found.content_type == "text/csv"


async def test_a_listing_has_all_pages(store: ObjectStore, folder: str) -> None:
    names = [f"{folder}/{number:04}" for number in range(1_001)]
    for name in names:
        await store.put(name, b"x")
    await store.put(f"{folder}-not", b"x")

    listed = [entry async for entry in store.objects(f"{folder}/")]

    assert [entry.key for entry in listed] == names
    assert {entry.size for entry in listed} == {1}


async def test_a_presigned_address_works_without_keys(store: ObjectStore, folder: str) -> None:
    lifetime = timedelta(minutes=1)
    async with httpx.AsyncClient() as client:
        put = await client.put(await store.presign_put(f"{folder}/a", lifetime), content=b"1")
        first = await store.head(f"{folder}/a")
        await store.put(f"{folder}/a", b"2")
        newest = await client.get(await store.presign_get(f"{folder}/a", lifetime))
        pinned = await client.get(await store.presign_get(f"{folder}/a", lifetime, version_id=first.version_id))

    assert (put.status_code, newest.content, pinned.content) == (200, b"2", b"1")


async def test_a_wrong_key_is_forbidden(stack: Stack, folder: str) -> None:
    nobody = S3Key(access_key_id="nobody", secret_access_key="secret")
    settings = stack.settings.model_copy(update={"s3_keys": {"nobody": nobody}})
    async with object_store(settings, "nobody") as store:
        with pytest.raises(Forbidden):
            await store.get(f"{folder}/a")


async def test_a_store_that_does_not_answer_is_unavailable(stack: Stack, unused_tcp_port: int) -> None:
    settings = stack.settings.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{unused_tcp_port}"})
    async with object_store(settings, "infra") as store:
        with pytest.raises(Unavailable):
            await store.put("a", b"")


async def test_a_bucket_that_was_not_made_yet_is_unavailable(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"s3_bucket": "never-made"})
    async with object_store(settings, "infra") as store:
        with pytest.raises(Unavailable, match="bucket"):
            await store.get("a")


async def test_nothing_worse_than_unavailable_comes_of_a_kill(
    stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    large = noise(12 * MEBIBYTE)
    async with (
        stack_in(tmp_path_factory.mktemp("store"), ["object_store"]) as stack,
        object_store(stack.settings, "infra", part_bytes=5 * MEBIBYTE) as store,
    ):
        await store.put("large", large)
        is_back = asyncio.Event()

        async def repeat(request: Callable[[], Awaitable[object]]) -> None:
            """Through the outage, and once more."""
            is_over = False
            while not is_over:
                is_over = is_back.is_set()
                with suppress(Unavailable):
                    await request()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat(lambda: store.get("large")))
            tasks.create_task(repeat(lambda: store.put_stream("streamed", chunks(large, MEBIBYTE))))
            tasks.create_task(repeat(lambda: store.put("small", b"1")))
            await stack.kill("object_store")
            await stack.until_ready("object_store")
            is_back.set()

        assert await store.get("large") == await store.get("streamed") == large
