"""Files become known in three ways, once each, and zones say what they hold."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from nats.js.api import DeliverPolicy

from contracts.landing import (
    AddressFile,
    AddressSample,
    AddressUpload,
    ChangeZone,
    CreateZone,
    FileLanded,
    FileState,
    FindFile,
    FindZone,
    LandingFile,
    ListFiles,
    ListSamples,
    ListZones,
    RecordUpload,
    RejectFile,
    RemoveFile,
    RemoveSample,
    RemoveZone,
    RetryFile,
    Zone,
    ZoneBlank,
)
from contracts.messages import utc_now
from contracts.pipelines import NamespaceRemoved
from infra.stacks.stack import Stack
from services.ingest.service import serve
from shared.errors import AlreadyExists, Conflict, Invalid, NotFound
from shared.object_store import MEBIBYTE, object_store
from tests.client import unique
from tests.hearing import heard_all
from tests.landing import Neighbours, Pipeline, infra_client, neighbours, put_many
from tests.refusing import behind_a_door
from tests.waiting import eventually


@pytest.fixture
async def they(stack: Stack) -> AsyncIterator[Neighbours]:
    """Ingest runs; these are its neighbours."""
    async with neighbours(stack.settings) as they, serve(stack.settings):
        yield they


async def upload(they: Neighbours, zone: Zone, filename: str, content: bytes, **facts: Any) -> LandingFile:
    """What the gateway does with an uploaded file."""
    where = await they.gateway.ask(AddressUpload(namespace=zone.namespace, zone=zone.name, filename=filename))
    async with httpx.AsyncClient() as http:
        answer = await http.put(where.url, content=content)
    assert answer.is_success, answer.text
    return await they.gateway.ask(
        RecordUpload(
            namespace=zone.namespace,
            zone=zone.name,
            filename=filename,
            version_id=answer.headers["x-amz-version-id"],
            etag=answer.headers["etag"],
            size_bytes=len(content),
            **facts,
        )
    )


def of(zone: Zone, file: LandingFile) -> dict[str, Any]:
    return {"namespace": zone.namespace, "zone": zone.name, "file_id": file.id}


# Zones


async def test_a_zone_is_made_shown_changed_listed_and_removed(they: Neighbours) -> None:
    name = unique("orders")
    made = await they.gateway.ask(
        CreateZone(namespace="default", name=name, description="from the shop", expected_schema="id bigint")
    )
    assert (made.name, made.file_count, made.total_bytes, made.auto_purge) == (name, 0, 0, False)

    changed = await they.gateway.ask(ChangeZone(namespace="default", name=name, owner="ana", auto_purge=True))
    assert (changed.description, changed.owner, changed.auto_purge) == ("from the shop", "ana", True)
    assert changed.updated_at > made.updated_at
    assert await they.gateway.ask(FindZone(namespace="default", name=name)) == changed

    listed = await they.gateway.ask(ListZones(namespace="default", limit=200))
    assert changed in listed.zones
    assert listed.total == len(listed.zones)

    await they.gateway.ask(RemoveZone(namespace="default", name=name))
    with pytest.raises(NotFound, match=name):
        await they.gateway.ask(FindZone(namespace="default", name=name))


async def test_zones_of_which_there_is_much_to_tell_come_in_more_pages(they: Neighbours) -> None:
    namespace = they.namespace()
    columns = ", ".join(f"column_{number} varchar" for number in range(3000))
    made = [
        await they.gateway.ask(CreateZone(namespace=namespace, name=f"zone_{number:02}", expected_schema=columns))
        for number in range(20)
    ]

    page = await they.gateway.ask(ListZones(namespace=namespace, limit=200))
    listed = page.zones
    while page.next_cursor is not None:
        page = await they.gateway.ask(ListZones(namespace=namespace, limit=200, cursor=page.next_cursor))
        listed = [*listed, *page.zones]

    assert listed == made
    assert page.total == 20


async def test_a_zone_needs_a_namespace_that_exists_and_a_name_that_is_free(they: Neighbours) -> None:
    zone = await they.zone()

    with pytest.raises(AlreadyExists, match=zone.name):
        await they.gateway.ask(CreateZone(namespace="default", name=zone.name))
    with pytest.raises(NotFound, match="nowhere"):
        await they.gateway.ask(CreateZone(namespace="nowhere", name="orders"))
    with pytest.raises(NotFound):
        await they.gateway.ask(ListFiles(namespace="default", zone=unique("none")))


async def test_a_removed_zone_takes_its_files_with_it_and_leaves_its_name(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv")
    [old] = (await they.landed(zone, "a.csv")).values()

    await they.gateway.ask(RemoveZone(namespace="default", name=zone.name))

    again = await they.gateway.ask(CreateZone(namespace="default", name=zone.name))
    assert again.id != zone.id
    await they.put(again, "b.csv")
    assert (await they.landed(again, "b.csv")).keys() == {"b.csv"}

    async def is_gone() -> bool:
        return [found async for found in they.bucket.versions(old.s3_path)] == []

    await eventually(is_gone)


async def test_zones_go_with_their_namespace(they: Neighbours) -> None:
    namespace = they.namespace()
    zone = await they.zone(namespace=namespace)

    await they.catalog.publish(NamespaceRemoved(namespace=namespace, namespace_id=they.namespaces[namespace]))

    async def is_gone() -> bool:
        return (await they.gateway.ask(ListZones(namespace=namespace))).total == 0

    await eventually(is_gone)
    with pytest.raises(NotFound):
        await they.gateway.ask(FindZone(namespace=namespace, name=zone.name))


async def test_zones_of_a_new_namespace_of_the_name_stay_when_the_end_of_the_old_one_is_heard_late(
    they: Neighbours,
) -> None:
    namespace = they.namespace()
    old = await they.zone(namespace=namespace)
    # By a clock that is far ahead of everybody else's.
    ahead = utc_now() + timedelta(days=1)
    removed = NamespaceRemoved(namespace=namespace, namespace_id=they.namespaces[namespace], occurred_at=ahead)
    they.namespaces[namespace] = uuid4()
    new = await they.zone(namespace=namespace)

    await they.catalog.publish(removed)

    async def left() -> bool:
        zones = (await they.gateway.ask(ListZones(namespace=namespace))).zones
        assert new in zones
        return old not in zones

    await eventually(left)


async def test_a_zone_that_is_made_while_its_namespace_is_deleted_is_none(they: Neighbours) -> None:
    namespace = they.namespace()
    removed = NamespaceRemoved(namespace=namespace, namespace_id=they.namespaces[namespace])

    async def delete() -> None:
        await they.catalog.publish(removed)
        await heard_all(they.settings, "ingest", NamespaceRemoved)

    they.when_found = delete

    with pytest.raises(NotFound, match=f"namespace '{namespace}' was deleted"):
        await they.zone(namespace=namespace)

    assert (await they.gateway.ask(ListZones(namespace=namespace))).total == 0


async def test_what_a_zone_need_not_say_can_be_cleared(they: Neighbours) -> None:
    name = unique("orders")
    query = CreateZone(namespace="default", name=name, owner="ana", processed_max_age_days=7, description="of a shop")
    await they.gateway.ask(query)

    cleared = await they.gateway.ask(ChangeZone(namespace="default", name=name, cleared=frozenset(ZoneBlank)))

    assert (cleared.owner, cleared.processed_max_age_days, cleared.description) == (None, None, "of a shop")


# Arrivals


async def test_a_file_that_is_put_with_an_s3_client_lands_and_is_said_once(they: Neighbours) -> None:
    zone = await they.zone()

    version = await they.put(zone, "dt=2026-01-01/a b+ü[1].csv", "id\n1\n")

    [file] = (await they.landed(zone, "dt=2026-01-01/a b+ü[1].csv")).values()
    assert (file.state, file.size_bytes, file.zone_id) == (FileState.LANDED, 5, zone.id)
    assert file.s3_path == f"default/landing/{zone.name}/dt=2026-01-01/a b+ü[1].csv"
    [landed] = await eventually(lambda: they.said(FileLanded, zone))
    assert landed["file_id"] == str(file.id)
    assert landed["version_id"] == version
    assert landed["key"] == file.s3_path
    shown = await they.holds(zone, 1)
    assert shown.total_bytes == 5


async def test_samples_archived_files_and_folders_are_no_files(they: Neighbours) -> None:
    zone = await they.zone()

    await they.put(zone, "_samples/a.csv")
    await they.put(zone, "_processed/x/a.csv")
    await they.bucket.put(f"default/landing/{zone.name}/folder/", b"")
    await they.put(zone, "folder/a.csv")

    assert (await they.landed(zone, "folder/a.csv")).keys() == {"folder/a.csv"}
    assert len(they.said(FileLanded, zone)) <= 1


async def test_files_that_were_there_before_their_zone_land_when_it_is_made(they: Neighbours) -> None:
    name = unique("orders")
    for filename in ("a.csv", "b.csv"):
        await they.bucket.put(f"default/landing/{name}/{filename}", b"id\n1\n")

    zone = await they.gateway.ask(CreateZone(namespace="default", name=name))

    assert (await they.landed(zone, "a.csv", "b.csv")).keys() == {"a.csv", "b.csv"}
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)


async def test_an_upload_through_the_gateway_and_its_notification_are_one_file(they: Neighbours) -> None:
    zone = await they.zone()

    file = await upload(they, zone, "a.csv", b"id\n1\n", content_type="text/csv", uploaded_by="ana")

    assert (file.filename, file.size_bytes, file.content_type, file.uploaded_by) == ("a.csv", 5, "text/csv", "ana")
    again = await upload(they, zone, "b.csv", b"id\n2\n")
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)
    assert {landed["file_id"] for landed in they.said(FileLanded, zone)} == {str(file.id), str(again.id)}
    assert await they.gateway.ask(FindFile(**of(zone, file))) == file


async def test_an_upload_whose_version_nobody_knows_is_looked_up(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv")

    query = RecordUpload(namespace="default", zone=zone.name, filename="a.csv")
    file = await they.gateway.ask(query)

    assert await they.gateway.ask(query) == file
    with pytest.raises(NotFound, match=r"b\.csv"):
        await they.gateway.ask(query.model_copy(update={"filename": "b.csv"}))


@pytest.mark.parametrize("filename", ["../a.csv", "a?.csv", "a\n.csv", "_samples/a.csv", "a/", ""])
async def test_names_that_cannot_be_read_are_refused_at_the_gateway(they: Neighbours, filename: str) -> None:
    zone = await they.zone()

    with pytest.raises(Invalid):
        await they.gateway.ask(AddressUpload(namespace="default", zone=zone.name, filename=filename))


async def test_names_that_cannot_be_read_are_rejected_from_the_bucket(they: Neighbours) -> None:
    zone = await they.zone()

    await they.put(zone, "a?.csv")

    file = (await they.landed(zone, "a?.csv"))["a?.csv"]
    assert file.state is FileState.REJECTED
    assert file.reason == "the name 'a?.csv' has '?'"
    assert (await they.gateway.ask(RetryFile(**of(zone, file)))).state is FileState.REJECTED
    assert they.said(FileLanded, zone) == []
    await they.holds(zone, 0)


async def test_a_file_in_parts_lands_when_it_is_whole(they: Neighbours, stack: Stack) -> None:
    zone = await they.zone()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * MEBIBYTE

    async with object_store(stack.settings, "uploader", part_bytes=5 * MEBIBYTE) as bucket:
        await bucket.put_stream(f"default/landing/{zone.name}/large.csv", chunks())

    file = (await they.landed(zone, "large.csv"))["large.csv"]
    assert file.size_bytes == 11 * MEBIBYTE
    [landed] = await eventually(lambda: they.said(FileLanded, zone))
    assert landed["size_bytes"] == 11 * MEBIBYTE


async def test_a_newer_version_supersedes_an_unread_one(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv", "id\n1\n")
    old = (await they.landed(zone, "a.csv"))["a.csv"]

    await they.put(zone, "a.csv", "id\n1\n2\n")

    async def is_superseded() -> bool:
        return (await they.gateway.ask(FindFile(**of(zone, old)))).state is FileState.SUPERSEDED

    await eventually(is_superseded)
    new = (await they.files(zone))["a.csv"]
    assert (new.state, new.size_bytes) == (FileState.LANDED, 7)
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)
    await they.holds(zone, 1)


def notification(zone: Zone, filename: str, version: str, name: str = "ObjectCreated:Put") -> bytes:
    key = f"default/landing/{zone.name}/{filename}"
    record = {
        "eventName": name,
        "eventTime": "2026-01-01T00:00:00.000Z",
        "s3": {"bucket": {"name": "rat"}, "object": {"key": key, "versionId": version, "size": 5, "eTag": "e"}},
    }
    return json.dumps({"EventName": f"s3:{name}", "Key": f"rat/{key}", "Records": [record]}).encode()


async def test_a_late_notification_of_an_older_version_supersedes_nothing(they: Neighbours, stack: Stack) -> None:
    zone = await they.zone()
    version = await they.put(zone, "a.csv")
    await they.landed(zone, "a.csv")

    async with infra_client(stack.settings) as infra:
        for _ in range(2):
            await infra.jetstream().publish("bucket.events", notification(zone, "a.csv", "an-older-one"))
        await infra.jetstream().publish("bucket.events", notification(zone, "a.csv", version))

    async def superseded() -> dict[str, LandingFile]:
        return await they.files(zone, FileState.SUPERSEDED)

    assert (await eventually(superseded)).keys() == {"a.csv"}
    await eventually(lambda: len(they.said(FileLanded, zone)) == 2)
    await they.put(zone, "b.csv")
    files = await they.landed(zone, "b.csv")
    assert files["a.csv"].state is FileState.LANDED
    assert len(they.said(FileLanded, zone)) <= 3


async def test_a_notification_that_cannot_be_understood_becomes_a_dead_letter(they: Neighbours, stack: Stack) -> None:
    zone = await they.zone()
    broken = notification(zone, "a.csv", "v").replace(b'"eventTime"', b'"eventtime"')

    async with infra_client(stack.settings) as infra:
        dead = await infra.jetstream().subscribe("dead.ingest.bucket.events", deliver_policy=DeliverPolicy.NEW)
        await infra.jetstream().publish("bucket.events", broken)
        letter = await dead.next_msg(timeout=60)

    assert letter.data == broken
    assert "eventTime" in letter.headers["rat-dead-reason"]
    await they.put(zone, "b.csv")
    await they.landed(zone, "b.csv")


async def test_a_file_that_is_deleted_from_the_bucket_is_removed(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv")
    file = (await they.landed(zone, "a.csv"))["a.csv"]

    await they.remove(zone, "a.csv")

    async def is_removed() -> bool:
        return (await they.gateway.ask(FindFile(**of(zone, file)))).state is FileState.REMOVED

    await eventually(is_removed)
    await they.holds(zone, 0)
    assert await they.files(zone) == {}


async def test_a_start_finds_what_happened_while_nobody_listened(stack: Stack) -> None:
    async with neighbours(stack.settings) as they:
        async with serve(stack.settings):
            zone = await they.zone()
            await put_many(they, zone, ["stays.csv", "goes.csv", "changes.csv"])
            await they.holds(zone, 3)
        await they.remove(zone, "goes.csv")
        await they.put(zone, "changes.csv", "id\n1\n2\n")
        await they.put(zone, "comes.csv")
        async with infra_client(stack.settings) as infra:
            await infra.jetstream().purge_stream("BUCKET")

        async with serve(stack.settings), AsyncExitStack() as replicas:
            await replicas.enter_async_context(serve(stack.settings))

            async def is_found() -> bool:
                sizes = {name: file.size_bytes for name, file in (await they.files(zone)).items()}
                return sizes == {"stays.csv": 5, "changes.csv": 7, "comes.csv": 5}

            await eventually(is_found)
            assert (await they.files(zone, FileState.REMOVED)).keys() == {"goes.csv"}
            await eventually(lambda: len(they.said(FileLanded, zone)) == 5)


async def test_the_sweep_finds_what_no_notification_told_of(stack: Stack) -> None:
    impatient = stack.settings.model_copy(update={"sweep_interval_seconds": 0.2})
    async with neighbours(stack.settings) as they, serve(impatient), infra_client(stack.settings) as infra:
        zone = await they.zone()
        await they.put(zone, "a.csv")
        await they.landed(zone, "a.csv")
        later = (utc_now() + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
        await infra.jetstream().pause_consumer("BUCKET", "ingest-bucket-events", later)

        await they.put(zone, "b.csv")

        assert (await they.landed(zone, "b.csv")).keys() == {"a.csv", "b.csv"}
        await infra.jetstream().resume_consumer("BUCKET", "ingest-bucket-events")
        await they.put(zone, "c.csv")
        await they.landed(zone, "c.csv")
        assert len(they.said(FileLanded, zone)) <= 3


async def test_a_zone_that_cannot_be_listed_has_no_other_listed_again_and_again(stack: Stack) -> None:
    async with neighbours(stack.settings) as they, behind_a_door(stack.settings) as (through, door):
        bad, good = await old_zone(they, stack), await old_zone(they, stack)
        listed: list[str] = []

        def note(method: str, path: str) -> bool:
            if method == "GET" and "versions" in path:
                listed.append(path)
            return bad.name in path

        door.refuses = note
        async with serve(through.model_copy(update={"sweep_interval_seconds": 3600.0})):
            await eventually(lambda: door.refused)
            for _ in range(3):
                zone = await they.zone()
                await they.put(zone, "a.csv")
                await they.landed(zone, "a.csv")
                await eventually(lambda zone=zone: any(zone.name in path for path in listed))

        assert sum(good.name in path for path in listed) == 1


async def old_zone(they: Neighbours, stack: Stack) -> Zone:
    """A zone that was made by an ingest that runs no more."""
    async with serve(stack.settings):
        return await they.zone()


async def test_many_files_at_once_land_once_each_with_two_replicas(they: Neighbours, stack: Stack) -> None:
    zone = await they.zone()

    async with serve(stack.settings):
        await put_many(they, zone, (f"f{number:03}.csv" for number in range(300)))
        await they.holds(zone, 300, within=90)

    await eventually(lambda: len(they.said(FileLanded, zone)) >= 300)
    landed = [content["file_id"] for content in they.said(FileLanded, zone)]
    assert len(landed) == len(set(landed)) == 300
    assert len({UUID(file_id) for file_id in landed}) == 300


# What users do with files


async def test_a_deleted_file_leaves_the_zone_at_once_and_the_store_soon(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv", "id\n1\n")
    await they.put(zone, "a.csv", "id\n1\n2\n")
    await they.put(zone, "a.csv.bak")
    await they.landed(zone, "a.csv.bak")
    # Notifications of one key may come one after the other: the newest version is the one to be removed.
    file = await eventually(lambda: they.file_of_size(zone, "a.csv", 7))

    await they.gateway.ask(RemoveFile(**of(zone, file)))
    await they.gateway.ask(RemoveFile(**of(zone, file)))

    assert (await they.files(zone)).keys() == {"a.csv.bak"}
    assert (await they.gateway.ask(FindFile(**of(zone, file)))).state is FileState.REMOVED

    async def left() -> bool:
        return {found.key async for found in they.bucket.versions(file.s3_path)} == {f"{file.s3_path}.bak"}

    await eventually(left)
    with pytest.raises(NotFound):
        await they.gateway.ask(AddressFile(**of(zone, file)))
    with pytest.raises(NotFound):
        await they.gateway.ask(RemoveFile(namespace="default", zone=zone.name, file_id=uuid4()))


async def test_a_deleted_file_stays_in_the_store_while_a_run_reads_it(they: Neighbours) -> None:
    zone, pipeline, run_id = await they.zone(), Pipeline("default.bronze.orders"), uuid4()
    await they.put(zone, "a.csv")
    await they.put(zone, "b.csv")
    files = await they.landed(zone, "a.csv", "b.csv")
    await they.claim(run_id, pipeline, zone)

    other = await they.zone()
    await they.put(other, "c.csv")
    unclaimed = (await they.landed(other, "c.csv"))["c.csv"]
    await they.gateway.ask(RemoveFile(**of(zone, files["a.csv"])))
    await they.gateway.ask(RemoveFile(**of(other, unclaimed)))

    async def versions(file: LandingFile) -> int:
        return len([found async for found in they.bucket.versions(file.s3_path)])

    async def is_gone(file: LandingFile) -> bool:
        return await versions(file) == 0

    await eventually(lambda: is_gone(unclaimed))
    assert await versions(files["a.csv"]) == 1
    assert (await they.check(run_id)).state == "unchanged"
    await they.finish(run_id, pipeline)
    await eventually(lambda: is_gone(files["a.csv"]))


async def test_a_rejected_file_is_kept_out_until_it_is_tried_again(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv")
    file = (await they.landed(zone, "a.csv"))["a.csv"]

    rejected = await they.gateway.ask(RejectFile(**of(zone, file), reason="wrong month"))
    assert (rejected.state, rejected.reason) == (FileState.REJECTED, "wrong month")
    await they.holds(zone, 0)

    landed = await they.gateway.ask(RetryFile(**of(zone, file)))
    assert (landed.state, landed.reason) == (FileState.LANDED, None)
    await they.holds(zone, 1)

    await they.gateway.ask(RemoveFile(**of(zone, file)))
    with pytest.raises(Conflict, match="removed"):
        await they.gateway.ask(RejectFile(**of(zone, file)))


async def test_the_content_of_a_file_can_be_read_at_the_version_that_it_is(they: Neighbours) -> None:
    zone = await they.zone()
    await they.put(zone, "a.csv", "id\n1\n")
    file = (await they.landed(zone, "a.csv"))["a.csv"]
    await they.put(zone, "a.csv", "id\n2\n")

    where = await they.gateway.ask(AddressFile(**of(zone, file)))

    async with httpx.AsyncClient() as http:
        answer = await http.get(where.url)
    assert answer.text == "id\n1\n"
    assert where.size_bytes == 5


async def test_files_are_listed_in_pages(they: Neighbours) -> None:
    zone = await they.zone()
    await put_many(they, zone, (f"{number}.csv" for number in range(5)))
    await they.holds(zone, 5)

    first = await they.gateway.ask(ListFiles(namespace="default", zone=zone.name, limit=3))
    rest = await they.gateway.ask(ListFiles(namespace="default", zone=zone.name, limit=3, cursor=first.next_cursor))

    assert (first.total, len(first.files), len(rest.files), rest.next_cursor) == (5, 3, 2, None)
    assert len({file.filename for file in [*first.files, *rest.files]}) == 5


async def test_samples_are_put_listed_and_removed(they: Neighbours) -> None:
    zone = await they.zone()
    where = await they.gateway.ask(AddressSample(namespace="default", zone=zone.name, filename="a.csv"))
    async with httpx.AsyncClient() as http:
        assert (await http.put(where.url, content=b"id\n1\n")).is_success

    query = ListSamples(namespace="default", zone=zone.name)
    [sample] = (await they.gateway.ask(query)).files
    assert (sample.path, sample.size, sample.type) == ("a.csv", 5, "csv")

    await they.gateway.ask(RemoveSample(namespace="default", zone=zone.name, filename="a.csv"))
    assert (await they.gateway.ask(query)).total == 0
    with pytest.raises(NotFound, match=r"a\.csv"):
        await they.gateway.ask(RemoveSample(namespace="default", zone=zone.name, filename="a.csv"))
