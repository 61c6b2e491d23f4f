"""Tables of numbers on branches, for tests of the lakehouse."""

import json
from collections.abc import Callable
from uuid import UUID, uuid4

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from contracts.names import Qualified
from shared.lakehouse.port import Lakehouse, Merged, MetadataFile
from shared.lakehouse.view_metadata import version_of
from shared.object_store import ObjectStore

COLUMNS = Schema(NestedField(1, "n", LongType(), required=False))

Catalogs = Callable[[str], Catalog]
"""The catalog of a branch."""


def new_table() -> Qualified:
    return Qualified("test", "bronze", f"t{uuid4().hex[:10]}")


async def new_branch(lake: Lakehouse) -> str:
    name = f"run-{uuid4()}-1"
    await lake.create_branch(name)
    return name


def rows(*numbers: int) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64())})


def append(catalog: Catalog, table: Qualified, *numbers: int) -> None:
    if catalog.table_exists(table):
        catalog.load_table(table).append(rows(*numbers))
        return
    with catalog.create_table_transaction(table, rows().schema) as transaction:
        transaction.append(rows(*numbers))


def create_view(catalog: Catalog, view: Qualified, sql: str = "select 1 as n", columns: Schema = COLUMNS) -> None:
    catalog.create_view(tuple(view), columns, version_of(view, sql), properties={"rat.pipeline_id": "1"})


async def merged_view(
    lake: Lakehouse, on: Catalogs, view: Qualified, sql: str = "select 1 as n", columns: Schema = COLUMNS
) -> Merged:
    """Put a view on main in the place of whatever is there."""
    branch = await new_branch(lake)
    if await lake.relation(view, branch) is not None:
        await lake.drop_table(branch, view)
    create_view(on(branch), view, sql, columns)
    merge = await lake.merge(branch, uuid4(), 1)
    assert merge is not None
    return merge


def read(catalog: Catalog, table: Qualified) -> list[int]:
    return sorted(catalog.load_table(table).scan().to_arrow()["n"].to_pylist())


async def merged(lake: Lakehouse, on: Catalogs, table: Qualified, *numbers: int, run_id: UUID | None = None) -> Merged:
    """Append to a table on main, by way of a branch."""
    name = await new_branch(lake)
    append(on(name), table, *numbers)
    merge = await lake.merge(name, run_id or uuid4(), 1)
    assert merge is not None
    return merge


async def upgraded(lake: Lakehouse, objects: ObjectStore, table: Qualified, *, new_column: str) -> str:
    """Make a table on main one of Iceberg's third version, with a new column of this type, as other engines do.

    Gives the key of its metadata, which says nothing of ours any more.
    """
    location = await lake.location(table)
    assert location is not None
    bucket, _, key = location.removeprefix("s3://").partition("/")
    metadata = json.loads(await objects.get(key))
    [schema] = metadata["schemas"]
    added = max(field["id"] for field in schema["fields"]) + 1
    schema["fields"].append({"id": added, "name": "added", "required": False, "type": new_column})
    metadata |= {"format-version": 3, "next-row-id": 1000, "last-column-id": added}
    for snapshot in metadata["snapshots"]:
        snapshot |= {"first-row-id": 0, "added-rows": 1000}
    new = f"{key.rpartition('/')[0]}/third.metadata.json"
    await objects.put(new, json.dumps(metadata).encode())
    branch = await new_branch(lake)
    file = MetadataFile(f"s3://{bucket}/{new}", metadata["current-snapshot-id"], metadata["current-schema-id"], 0, 0)
    await lake.commit(branch, table, location, file)
    assert await lake.merge(branch, uuid4(), 1) is not None
    return new
