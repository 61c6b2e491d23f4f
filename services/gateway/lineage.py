"""The graph of what pipelines read and write, put together from what three services know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar

import msgspec

from contracts.landing import ListZones, Zone
from contracts.lineage import ListReads, PipelineReads
from contracts.names import Qualified
from contracts.tables import ListTables, Table
from shared.bus import Bus
from shared.errors import NotFound

T = TypeVar("T")


class TableStats(msgspec.Struct):
    """How large a table is on main."""

    row_count: int
    size_bytes: int


class LandingInfo(msgspec.Struct):
    """How many files a landing zone holds."""

    file_count: int


class Node(msgspec.Struct, omit_defaults=True):
    """A pipeline, a table or a landing zone; what is not known of it is left out."""

    id: str
    type: Literal["pipeline", "table", "landing_zone"]
    namespace: str
    name: str
    layer: str | None = None
    latest_run: dict[str, Any] | None = None
    quality: dict[str, int] | None = None
    table_stats: TableStats | None = None
    landing_info: LandingInfo | None = None


class EdgeOf(msgspec.Struct, frozen=True):
    """An arrow of the graph, in the direction that data goes."""

    source: str
    target: str
    type: Literal["ref", "produces", "landing_input"]


class Graph(msgspec.Struct):
    """Lineage."""

    nodes: list[Node]
    edges: list[EdgeOf]


async def graph(bus: Bus, namespace: str | None) -> Graph:
    """What the pipelines of a namespace, or all of them, read and write; with what they read of other namespaces."""
    reads = [one async for one in _all(lambda cursor: _reads(bus, namespace, cursor))]
    names = {name for one in reads for name in [*one.reads_tables, *_written(one)]}
    zones = {zone for one in reads for zone in one.reads_zones}
    spaces = {name.partition(".")[0] for name in names}
    of_zones = {zone.partition("/")[0] for zone in zones}
    tables, files = await asyncio.gather(
        asyncio.gather(*(_tables(bus, one) for one in sorted(spaces))),
        asyncio.gather(*(_zones(bus, one) for one in sorted(of_zones))),
    )
    stats = {f"{one.namespace}.{one.layer}.{one.name}": one for found in tables for one in found}
    counts = {f"{one.namespace}/{one.name}": one.file_count for found in files for one in found}
    return Graph(
        nodes=[
            *(_pipeline_node(one) for one in reads),
            *(_table_node(name, stats.get(name)) for name in sorted(names)),
            *(_zone_node(zone, counts.get(zone)) for zone in sorted(zones)),
        ],
        edges=list(dict.fromkeys(edge for one in reads for edge in _edges(one))),
    )


def _written(pipeline: PipelineReads) -> list[str]:
    """The table of a pipeline, once it has one to write: a draft has none."""
    return [_name(pipeline)] if pipeline.is_published else []


def _name(pipeline: PipelineReads) -> str:
    return f"{pipeline.namespace}.{pipeline.layer}.{pipeline.name}"


def _edges(pipeline: PipelineReads) -> Iterable[EdgeOf]:
    own = f"pipeline:{_name(pipeline)}"
    for name in pipeline.reads_tables:
        yield EdgeOf(f"table:{name}", own, "ref")
    for zone in pipeline.reads_zones:
        yield EdgeOf(f"landing_zone:{zone}", own, "landing_input")
    for name in _written(pipeline):
        yield EdgeOf(own, f"table:{name}", "produces")


def _pipeline_node(one: PipelineReads) -> Node:
    latest = one.latest_run.model_dump(mode="json") if one.latest_run else None
    quality = one.quality.model_dump()
    return Node(f"pipeline:{_name(one)}", "pipeline", one.namespace, one.name, one.layer, latest, quality)


def _table_node(name: str, table: Table | None) -> Node:
    namespace, layer, last = Qualified.parse(name)
    stats = TableStats(table.row_count, table.size_bytes) if table else None
    return Node(f"table:{name}", "table", namespace, last, layer, table_stats=stats)


def _zone_node(zone: str, files: int | None) -> Node:
    namespace, _, name = zone.partition("/")
    info = None if files is None else LandingInfo(files)
    return Node(f"landing_zone:{zone}", "landing_zone", namespace, name, landing_info=info)


# What is asked, page by page


async def _all(page: Callable[[str | None], Awaitable[tuple[list[T], str | None]]]) -> AsyncIterator[T]:
    cursor = None
    while True:
        entries, cursor = await page(cursor)
        for entry in entries:
            yield entry
        if cursor is None:
            return


async def _reads(bus: Bus, namespace: str | None, cursor: str | None) -> tuple[list[PipelineReads], str | None]:
    answer = await bus.ask(ListReads(namespace=namespace, limit=200, cursor=cursor))
    return answer.pipelines, answer.next_cursor


async def _tables(bus: Bus, namespace: str) -> list[Table]:
    async def page(cursor: str | None) -> tuple[list[Table], str | None]:
        answer = await bus.ask(ListTables(namespace=namespace, limit=200, cursor=cursor))
        return answer.tables, answer.next_cursor

    return [table async for table in _all(page)]


async def _zones(bus: Bus, namespace: str) -> list[Zone]:
    """The zones of a namespace; none of one that is gone."""

    async def page(cursor: str | None) -> tuple[list[Zone], str | None]:
        answer = await bus.ask(ListZones(namespace=namespace, limit=200, cursor=cursor))
        return answer.zones, answer.next_cursor

    try:
        return [zone async for zone in _all(page)]
    except NotFound:
        return []
