"""What the columns of a table come from, read from the query of its pipeline."""

import asyncio
from collections.abc import Mapping, Sequence

import asyncpg

from contracts.lineage import ColumnLineage, FindColumnLineage, TableLineage
from contracts.names import Qualified
from contracts.tables import FindTable
from services.catalog.code import drafts
from services.catalog.code.columns import trace
from services.catalog.code.store import lineage as store
from shared.bus import Bus
from shared.errors import NotFound


async def column_lineage(db: asyncpg.Pool, bus: Bus, query: FindColumnLineage) -> TableLineage:
    """The columns of a table, and those that they come from, one step back."""
    pipeline = await drafts.living(db, Qualified.parse(query.table))
    published = await store.published_query(db, pipeline.shown.id)
    if published is None:
        raise NotFound(f"no version of {query.table} is published")
    names = dict.fromkeys([query.table, *published.reads_tables])
    found = await asyncio.gather(*(_columns(bus, name) for name in names))
    columns = dict(zip(names, found, strict=True))
    try:
        traced = await _traced(published.sql, columns, query.table)
    except ValueError as error:
        return TableLineage(
            table=query.table,
            version=published.version,
            columns=[ColumnLineage(name=name, sources=[]) for name in columns[query.table]],
            unknown=f"version {published.version} cannot be followed: {error}",
        )
    return TableLineage(table=query.table, version=published.version, columns=traced)


async def _traced(sql: str | None, columns: Mapping[str, Sequence[str]], table: str) -> list[ColumnLineage]:
    """What a published query makes of columns; `ValueError` where that is not known."""
    if sql is None:
        raise ValueError("it is in Python, very long, or older than lineage")
    # It works on a query of some pages for a second, and nobody else is to wait for it.
    return await asyncio.to_thread(trace, sql, columns, table)


async def _columns(bus: Bus, table: str) -> list[str]:
    """The columns of a table; none while main has no such table."""
    namespace, layer, name = Qualified.parse(table)
    try:
        return [one.name for one in (await bus.ask(FindTable(namespace=namespace, layer=layer, name=name))).columns]
    except NotFound:
        return []
