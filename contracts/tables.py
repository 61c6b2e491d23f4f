"""Tables on main: how they change, and what is asked about them."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from contracts.messages import Event, Inbox, Message, Query
from contracts.names import Layer, Name, PipelineName
from contracts.paging import PageRequest
from contracts.text import Text

_MAX_DESCRIPTIONS_BYTES: Final = 100_000


class TableChanged(Event, subject="table.changed"):
    """Main has a new snapshot of a table."""

    namespace: str
    layer: str
    name: str
    snapshot: str
    """The entry of the log of merges, an opaque string."""
    change: Literal["written", "dropped"] = "written"
    run_id: UUID | None = None


class Column(Message):
    """A column of a table, with what its owner says of it."""

    name: str
    type: str
    """As DuckDB writes it: `BIGINT`, `DECIMAL(10,2)`, `VARCHAR[]` …; as Iceberg does where DuckDB has no such type."""
    nullable: bool
    description: str | None = None


class Table(Message):
    """A table or a view on main, as lists show it."""

    namespace: str
    layer: str
    name: str
    kind: Literal["table", "view"] = "table"
    row_count: int
    """From the table's Iceberg metadata; 0 for a view, which has no rows of its own."""
    size_bytes: int
    """Of its data files; 0 for a view."""
    description: str | None = None
    owner: str | None = None
    updated_at: datetime | None = None
    """When it last changed."""
    problem: str | None = None
    """What cannot be read of a table that another engine made; null for all others."""


class TableWithColumns(Table):
    """A table on main with its columns."""

    columns: list[Column]


class Tables(Message):
    """A page of tables."""

    tables: list[Table]
    total: int
    next_cursor: str | None = None


class ListTables(Query[Tables], PageRequest, subject="query.list_tables"):
    """List the tables and views on main, by name."""

    namespace: str | None = None
    layer: Layer | None = None


class FindTable(Query[TableWithColumns], subject="query.find_table"):
    """Show one table and its columns; NotFound if main has none of that name."""

    namespace: str
    layer: str
    name: str


class ResultEnd(Message):
    """What is known of a result when its last chunk is taken."""

    total_rows: int
    """The rows that were sent."""
    truncated: bool
    """Whether there are more than the limit let through."""
    duration_ms: float


class RunSql(Query[ResultEnd], subject="query.run_sql"):
    """Run one SELECT (or EXPLAIN, DESCRIBE, SUMMARIZE, SHOW) over the tables on main, or at another reference.

    The result goes to the asker's inbox as an Arrow IPC stream in chunks, before the answer. Invalid, with `line` and
    `column`, for SQL that DuckDB refuses; TimedOut after 60 s.
    """

    sql: str = Field(min_length=1, max_length=100_000)
    namespace: Name = "default"
    """Where `layer.table` is looked for."""
    limit: int = Field(default=1000, ge=0, le=10_000_000)
    branch: Text | None = Field(default=None, max_length=200)
    """A branch to read in place of main, as that of a failed run."""
    snapshot: Text | None = Field(default=None, max_length=100)
    """An entry of the log of merges: main as it was right after it."""
    inbox: Inbox
    """The subject that the asker listens on for chunks."""


class PreviewTable(Query[ResultEnd], subject="query.preview_table"):
    """Read some rows of a table; its result comes like that of a query."""

    namespace: str
    layer: str
    name: str
    limit: int = Field(default=100, ge=0, le=10_000)
    snapshot: Text | None = Field(default=None, max_length=100)
    """An entry of the log of merges: the table as it was right after it."""
    inbox: Inbox
    """The subject that the asker listens on for chunks."""


class SchemaColumn(Message):
    """The name and type of a column."""

    name: str
    type: str


class TableSchema(Message):
    """The columns of a table."""

    namespace: str
    layer: str
    name: str
    columns: list[SchemaColumn]


class SchemasEnd(Message):
    """How many schemas were sent."""

    total: int


class ReadSchemas(Query[SchemasEnd], subject="query.read_schemas"):
    """Read the columns of every table on main: a `TableSchema` as JSON a line, in chunks to the asker's inbox."""

    inbox: Inbox
    """The subject that the asker listens on for chunks."""


def _of_limited_size(descriptions: dict[str, str]) -> dict[str, str]:
    size = sum(len(column.encode()) + len(text.encode()) for column, text in descriptions.items())
    if size > _MAX_DESCRIPTIONS_BYTES:
        raise ValueError(f"descriptions of columns may have {_MAX_DESCRIPTIONS_BYTES} bytes in all, these have {size}")
    return descriptions


ColumnDescriptions = Annotated[dict[Text, Text], AfterValidator(_of_limited_size)]
"""Column → what it means, at most 100 000 bytes in all."""


class TableSummary(Message):
    """What its owner says about a table in short."""

    table: PipelineName
    description: str
    owner: str | None


class TableDocs(TableSummary):
    """What its owner says about a table and its columns."""

    column_descriptions: dict[str, str]
    updated_at: datetime | None
    """None if nothing was ever said."""


class TableSummaries(Message):
    """What is said about those of the tables about which anything is said."""

    tables: list[TableSummary]


class ListTableDocs(Query[TableSummaries], subject="catalog.list_table_docs"):
    """Ask what is said about these tables; about which nothing is said, they are left out of the answer."""

    tables: list[PipelineName] = Field(max_length=50)


class FindTableDocs(Query[TableDocs], subject="catalog.find_table_docs"):
    """Ask what is said about a table and its columns; empty texts if nothing is."""

    table: PipelineName


class DocumentTable(Query[TableDocs], subject="catalog.document_table"):
    """Describe a table: what is given replaces what was said, the rest stays."""

    table: PipelineName
    description: Text | None = Field(default=None, max_length=1000)
    owner: Text | None = Field(default=None, max_length=200)
    """Empty for nobody."""
    column_descriptions: ColumnDescriptions | None = None
