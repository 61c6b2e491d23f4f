"""What the columns of a table come from, read from the query of its pipeline."""

import asyncio

import asyncpg

from contracts.lineage import FindColumnLineage, TableLineage
from contracts.names import Qualified
from contracts.tables import FindTable
from services.catalog.code import drafts
from services.catalog.code.columns import trace
from services.catalog.code.store import lineage as store
from shared.bus import Bus
from shared.errors import NotFound, Unprocessable


async def column_lineage(db: asyncpg.Pool, bus: Bus, query: FindColumnLineage) -> TableLineage:
    """The columns of a table, and those that they come from, one step back."""
    pipeline = await drafts.living(db, Qualified.parse(query.table))
    published = await store.published_query(db, pipeline.shown.id)
    if published is None:
        raise NotFound(f"no version of {query.table} is published")
    if published.sql is None:
        raise Unprocessable(
            f"the columns of {query.table} cannot be traced: version {published.version} is in Python, very long, or"
            " older than lineage; a query in SQL that is published anew can be"
        )
    names = dict.fromkeys([query.table, *published.reads_tables])
    found = await asyncio.gather(*(_columns(bus, name) for name in names))
    columns = dict(zip(names, found, strict=True))
    try:
        # It works on a query of some pages for a second, and nobody else is to wait for it.
        traced = await asyncio.to_thread(trace, published.sql, columns, query.table)
    except ValueError as error:
        raise Unprocessable(f"the columns of {query.table} cannot be traced: {error}") from error
    return TableLineage(table=query.table, version=published.version, columns=traced)


async def _columns(bus: Bus, table: str) -> list[str]:
    """The columns of a table; none while main has no such table."""
    namespace, layer, name = Qualified.parse(table)
    try:
        return [one.name for one in (await bus.ask(FindTable(namespace=namespace, layer=layer, name=name))).columns]
    except NotFound:
        return []
