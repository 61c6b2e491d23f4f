"""What tables and their columns come from."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import FromQuery, QueryParameter

from contracts.lineage import FindColumnLineage, TableLineage
from contracts.names import PipelineName
from services.gateway.dependencies import Asker
from services.gateway.lineage import Graph, graph

_Table = Annotated[PipelineName, QueryParameter(description="`namespace.layer.name`")]


class LineageRoutes(Controller):
    """Which pipelines, tables and landing zones hang together."""

    path = "/lineage"
    tags = ("Lineage",)

    @get()
    async def read_lineage(self, bus: Asker, namespace: FromQuery[str | None] = None) -> Graph:
        """Draw what pipelines read and write."""
        return await graph(bus, namespace)

    @get("/columns")
    async def read_columns(self, bus: Asker, table: _Table) -> TableLineage:
        """Say which columns the columns of a pipeline's table come from, one step back."""
        return await bus.ask(FindColumnLineage(table=table))
