"""Tables of numbers on branches, for tests of the lakehouse."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from contracts.names import Qualified
from shared.lakehouse.port import Lakehouse, Merged
from shared.lakehouse.view_metadata import version_of

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
