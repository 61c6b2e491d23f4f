"""Query: SQL over the tables and views on main, their schemas and previews."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import Final

from contracts.names import Qualified
from contracts.tables import (
    Column,
    FindTable,
    FindTableDocs,
    ListTableDocs,
    ListTables,
    PreviewTable,
    ReadSchemas,
    ResultEnd,
    RunSql,
    SchemaColumn,
    SchemasEnd,
    Table,
    TableChanged,
    Tables,
    TableSchema,
    TableSummary,
    TableWithColumns,
)
from services.query.frames import Ask, Ended, Found, Named
from services.query.tables import Facts, TableFacts
from services.query.workers import Workers, workers
from shared.bus import Bus, connect
from shared.chunks import send_chunks, unless_left
from shared.errors import Invalid, NotFound
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.port import MAIN, Lakehouse, Relation, RelationKind
from shared.object_store import object_store
from shared.pages import cursor_after, fitting
from shared.settings import Settings

_DOCS_AT_ONCE: Final = 50
_SCHEMAS_AT_ONCE: Final = 100


@dataclass(frozen=True, repr=False)
class QueryService:
    """Answers what is asked about tables."""

    bus: Bus
    lakehouse: Lakehouse
    facts: TableFacts
    workers: Workers
    read_unasked: set[Qualified] = field(default_factory=set)
    """Tables whose metadata was read when they changed, and that nobody has asked about since."""

    async def run_sql(self, query: RunSql) -> ResultEnd:
        """Run one statement over the tables that it names, as they are on main at this moment."""
        if query.branch is not None and query.snapshot is not None:
            raise Invalid("a query reads a branch or a snapshot, not both")
        at = query.branch or query.snapshot or await self.lakehouse.head()
        return await self._sent(query.sql, query.namespace, query.limit, query.inbox, at)

    async def preview_table(self, query: PreviewTable) -> ResultEnd:
        """Read the first rows of a table."""
        table = _table(query.namespace, query.layer, query.name)
        at = query.snapshot or await self.lakehouse.head()
        await self._relation(table, at)
        # One more than is wanted tells whether there are more.
        sql = f'from "{table.namespace}"."{table.layer}"."{table.name}" limit {query.limit + 1}'
        return await self._sent(sql, table.namespace, query.limit, query.inbox, at)

    async def _sent(self, sql: str, namespace: str, limit: int, inbox: str, at: str) -> ResultEnd:
        """Run a statement for as long as somebody waits for its result."""
        return await unless_left(self.bus, inbox, self._run(sql, namespace, limit, inbox, at))

    async def _run(self, sql: str, namespace: str, limit: int, inbox: str, at: str) -> ResultEnd:
        began = perf_counter()
        ends: list[Ended] = []
        async with self.workers.lease() as worker:
            named = await worker.ask(Ask(sql=sql, namespace=namespace, limit=limit))
            found = await self._found(named, at)

            async def content() -> AsyncIterator[bytes]:
                async for piece in worker.run(found, lambda named: self._found(named, at)):
                    if isinstance(piece, bytes):
                        yield piece
                    else:
                        ends.append(piece)

            await send_chunks(self.bus, inbox, content())
        [end] = ends
        duration_ms = round((perf_counter() - began) * 1000, 3)
        return ResultEnd(total_rows=end["rows"], truncated=end["truncated"], duration_ms=duration_ms)

    async def _found(self, named: Named, at: str) -> Found:
        """Where the tables of a statement are, and what its views stand for, all at one reference."""
        if named["lists_tables"]:
            return await self._all(named, at)
        relations = await asyncio.gather(*(self._find(name, at) for name in named["tables"]))
        found = {name: relation for name, relation in zip(named["tables"], relations, strict=True) if relation}
        is_complete = len(found) == len(named["tables"])
        known = [] if is_complete else [str(name) for name in await self.lakehouse.relations(at)]
        return await self._told(found, columns={}, known=known)

    async def _all(self, named: Named, at: str) -> Found:
        there = await self.lakehouse.relations(at)
        facts = await self._facts(list(there), there)
        relations = {str(name): relation for name, relation in there.items()}
        columns = {name: _readable(fact) for name, fact in zip(relations, facts, strict=True)}
        found = {name: relations[name] for name in named["tables"] if name in relations}
        return await self._told(found, columns=columns, known=list(relations))

    async def _told(
        self, found: Mapping[str, Relation], *, columns: dict[str, list[tuple[str, str]]], known: list[str]
    ) -> Found:
        views = {name: relation for name, relation in found.items() if relation.kind is RelationKind.VIEW}
        facts = await self.facts.of_all(relation.location for relation in views.values())
        queries = {name: fact.query for name, fact in zip(views, facts, strict=True)}
        for name, query in queries.items():
            if query is None:
                raise Invalid(f"view {name} was made by another engine, in an SQL that cannot be read here")
        return Found(
            locations={name: relation.location for name, relation in found.items() if name not in views},
            views={name: query for name, query in queries.items() if query is not None},
            columns=columns,
            known=known,
        )

    async def _find(self, name: str, at: str) -> Relation | None:
        try:
            table = Qualified.parse(name)
        except ValueError:
            return None
        return await self.lakehouse.relation(table, at)

    async def _relation(self, name: Qualified, at: str) -> Relation:
        relation = await self.lakehouse.relation(name, at)
        if relation is None:
            raise NotFound(f"no table {str(name)!r}")
        return relation

    async def list_tables(self, query: ListTables) -> Tables:
        """List the tables and views on main with their sizes and what their owners say of them."""
        relations = await self.lakehouse.relations()
        names = sorted(
            table
            for table in relations
            if query.namespace in (None, table.namespace) and query.layer in (None, table.layer)
        )
        page = names[query.start : query.start + query.limit]
        facts, docs = await asyncio.gather(self._facts(page, relations), self._docs(page))
        tables = fitting(
            [Table(**_summary(table, fact, docs.get(str(table)))) for table, fact in zip(page, facts, strict=True)]
        )
        return Tables(tables=tables, total=len(names), next_cursor=cursor_after(query, tables, len(names)))

    async def _docs(self, tables: list[Qualified]) -> dict[str, TableSummary]:
        """What is said about these tables, by name."""
        names = [str(table) for table in tables]
        pages = [names[start : start + _DOCS_AT_ONCE] for start in range(0, len(names), _DOCS_AT_ONCE)]
        answers = await asyncio.gather(*(self.bus.ask(ListTableDocs(tables=page)) for page in pages))
        return {summary.table: summary for answer in answers for summary in answer.tables}

    async def find_table(self, query: FindTable) -> TableWithColumns:
        """Show a table with its columns."""
        table = _table(query.namespace, query.layer, query.name)
        found = await self._relation(table, MAIN)
        [facts], docs = await asyncio.gather(
            self._facts([table], {table: found}), self.bus.ask(FindTableDocs(table=str(table)))
        )
        columns = [
            Column(
                name=column.name,
                type=column.type,
                nullable=column.is_nullable,
                description=docs.column_descriptions.get(column.name),
            )
            for column in facts.columns
        ]
        return TableWithColumns(**_summary(table, facts, docs), columns=columns)

    async def read_schemas(self, query: ReadSchemas) -> SchemasEnd:
        """Send the columns of every table and view on main."""
        relations = await self.lakehouse.relations()
        await send_chunks(self.bus, query.inbox, self._schemas(relations))
        return SchemasEnd(total=len(relations))

    async def read_ahead(self, event: TableChanged) -> None:
        """Read what the metadata of a changed table says, so that the next list of tables need not.

        Once, until somebody has asked about the table: of many that change all the time few are looked at.
        """
        table = Qualified(event.namespace, event.layer, event.name)
        if table in self.read_unasked:
            return
        self.read_unasked.add(table)
        relation = await self.lakehouse.relation(table)
        if relation is not None:
            await self.facts.of(relation.location)

    async def _facts(self, tables: Sequence[Qualified], relations: Mapping[Qualified, Relation]) -> list[Facts]:
        """What the metadata of these tables says, for somebody who asks about them."""
        self.read_unasked.difference_update(tables)
        return await self.facts.of_all(relations[table].location for table in tables)

    async def _schemas(self, relations: Mapping[Qualified, Relation]) -> AsyncIterator[bytes]:
        names = sorted(relations)
        for start in range(0, len(names), _SCHEMAS_AT_ONCE):
            page = names[start : start + _SCHEMAS_AT_ONCE]
            facts = await self._facts(page, relations)
            for table, fact in zip(page, facts, strict=True):
                columns = [SchemaColumn(name=column.name, type=column.type) for column in fact.columns]
                schema = TableSchema(**table._asdict(), columns=columns)
                yield schema.model_dump_json().encode() + b"\n"


def _table(namespace: str, layer: str, name: str) -> Qualified:
    try:
        return Qualified.parse(f"{namespace}.{layer}.{name}")
    except ValueError as error:
        raise NotFound(f"no table {namespace}.{layer}.{name}: {error}") from error


def _readable(facts: Facts) -> list[tuple[str, str]]:
    """The columns that DuckDB has types for; one at least, as no table of its own is without."""
    readable = [(column.name, column.type) for column in facts.columns if column.unknown_type is None]
    return readable or [("unreadable", "VARCHAR")]


def _summary(table: Qualified, facts: Facts, docs: TableSummary | None) -> dict[str, str | int | datetime | None]:
    return {
        **table._asdict(),
        "kind": "view" if facts.is_view else "table",
        "row_count": facts.row_count,
        "size_bytes": facts.size_bytes,
        "description": docs.description if docs else "",
        "owner": docs.owner if docs else None,
        "updated_at": facts.updated_at,
        "problem": facts.problem,
    }


def wire(bus: Bus, query: QueryService) -> None:
    """Say what the service hears, asks and answers."""
    bus.hear(TableChanged, query.read_ahead)
    bus.asks(ListTableDocs, FindTableDocs)
    bus.answer(RunSql, query.run_sql)
    bus.answer(PreviewTable, query.preview_table)
    bus.answer(ListTables, query.list_tables)
    bus.answer(FindTable, query.find_table)
    bus.answer(ReadSchemas, query.read_schemas)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[None]:
    """Run the service until the block is left."""
    bus = connect(settings, "query")
    async with (
        lakehouse(settings, "query") as tables,
        object_store(settings, "query") as objects,
        workers(settings) as pool,
    ):
        wire(bus, QueryService(bus, tables, TableFacts(objects, settings.s3_bucket), pool))
        bus.check("lakehouse", tables.head)
        bus.check("object_store", lambda: objects.reach("default/bronze/"))
        async with bus.running():
            yield
