"""What the archive cannot take: SeaweedFS keeps to the lengths of S3."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.landing import FileState, RemoveFile
from infra.stacks.stack import Stack
from services.ingest.service import serve
from tests.landing import Neighbours, keys, neighbours, orders, processed, zone_with
from tests.waiting import eventually


@pytest.fixture
async def they(stack: Stack) -> AsyncIterator[Neighbours]:
    """Ingest runs; these are its neighbours."""
    async with neighbours(stack.settings) as they, serve(stack.settings):
        yield they


async def test_a_file_that_cannot_be_archived_holds_up_no_other(they: Neighbours) -> None:
    # Its place in the archive would have a longer key than S3 takes; MinIO takes it all the same.
    long = "/".join(["x" * 200] * 4) + "/" + "y" * 150
    zone, pipeline, run_id = await zone_with(they, long, "a.csv"), orders(), uuid4()
    await they.publish(pipeline, zone, archives=True)
    await they.claim(run_id, pipeline, zone)
    await they.finish(run_id, pipeline)
    other = await zone_with(they, "b.csv")

    [file] = (await they.files(other)).values()
    await they.gateway.ask(RemoveFile(namespace="default", zone=other.name, file_id=file.id))

    async def is_done() -> bool:
        return await keys(they, zone) == {long, f"_processed/{run_id}/a.csv"} and not await keys(they, other)

    await eventually(is_done)
    [said] = await eventually(lambda: processed(they, run_id))
    assert said["zones"] == [{"namespace": "default", "zone": zone.name, "files": 2, "archived": 1}]
    kept = (await they.files(zone))[long]
    assert kept.state is FileState.PROCESSED
    assert (kept.reason or "").startswith("it cannot be archived: ")
