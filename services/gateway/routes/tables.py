"""Tables on main, and SQL over them."""

from typing import Annotated, Any

import msgspec
from litestar import Controller, MediaType, Response, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody

from contracts.names import Layer
from contracts.tables import (
    DocumentTable,
    FindTable,
    ListTables,
    PreviewTable,
    ReadSchemas,
    RunSql,
    TableDocs,
    Tables,
    TableSchema,
    TableWithColumns,
)
from services.gateway.bodies import Result, Statement, TableDescription
from services.gateway.dependencies import Asker, Departure, Page
from services.gateway.results import result
from services.gateway.tokens import Scope
from shared.chunks import asking

_ONE = "/{namespace:str}/{layer:str}/{name:str}"

Accept = Annotated[
    str,
    HeaderParameter(name="Accept", description="`application/vnd.apache.arrow.stream` or `text/csv` in place of JSON"),
]


class Schemas(msgspec.Struct):
    """The columns of all tables."""

    tables: list[TableSchema]


class TableRoutes(Controller):
    """What runs have put on main."""

    path = "/tables"
    tags = ("Tables",)

    @get()
    async def list_tables(
        self, bus: Asker, page: Page, namespace: FromQuery[str | None] = None, layer: FromQuery[Layer | None] = None
    ) -> Tables:
        """List the tables with their sizes."""
        return await bus.ask(ListTables(**page.model_dump(), namespace=namespace, layer=layer))

    @get(_ONE)
    async def find_table(
        self, bus: Asker, namespace: FromPath[str], layer: FromPath[str], name: FromPath[str]
    ) -> TableWithColumns:
        """Show a table with its columns."""
        return await bus.ask(FindTable(namespace=namespace, layer=layer, name=name))

    @put(f"{_ONE}/metadata", opt={"audit": "table.update"})
    async def describe_table(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        data: JSONBody[TableDescription],
    ) -> TableDocs:
        """Say what a table and its columns mean."""
        await bus.ask(FindTable(namespace=namespace, layer=layer, name=name))
        return await bus.ask(DocumentTable(table=f"{namespace}.{layer}.{name}", **data.given()))

    @get(f"{_ONE}/preview", responses={200: ResponseSpec(Result, generate_examples=False)})
    async def preview_table(
        self,
        bus: Asker,
        namespace: FromPath[str],
        layer: FromPath[str],
        name: FromPath[str],
        departure: Departure,
        limit: FromQuery[int] = 100,
        snapshot: FromQuery[str | None] = None,
        accept: Accept = "",
    ) -> Response[Any]:
        """Read the first rows of a table."""
        table = {"namespace": namespace, "layer": layer, "name": name, "limit": limit, "snapshot": snapshot}
        return await result(
            bus, lambda inbox: PreviewTable.model_validate({**table, "inbox": inbox}), accept, departure
        )


@post(
    "/query",
    status_code=200,
    tags=["Tables"],
    opt={"scope": Scope.READ},
    responses={200: ResponseSpec(Result, generate_examples=False)},
)
async def run_query(bus: Asker, departure: Departure, data: JSONBody[Statement], accept: Accept = "") -> Response[Any]:
    """Run one SELECT, EXPLAIN, DESCRIBE, SUMMARIZE or SHOW over the tables."""
    return await result(bus, lambda inbox: RunSql(**data.given(), inbox=inbox), accept, departure)


@get("/schema", tags=["Tables"], media_type=MediaType.JSON, responses={200: ResponseSpec(Schemas)})
async def read_schema(bus: Asker) -> Response[bytes]:
    """Read the columns of every table."""
    async with asking(bus, lambda inbox: ReadSchemas(inbox=inbox)) as answer:
        lines = b"".join([chunk async for chunk in answer]).splitlines()
    return Response(b'{"tables":[' + b",".join(lines) + b"]}", media_type=MediaType.JSON)
