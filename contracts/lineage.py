"""Lineage: what pipelines read and write, table by table and column by column."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from contracts.messages import Message, Query
from contracts.names import Name, PipelineName
from contracts.paging import PageRequest
from contracts.runs import RunStatus


class LatestRun(Message):
    """The newest run of a pipeline."""

    id: UUID
    status: RunStatus
    started_at: datetime | None
    finished_at: datetime | None


class QualityCount(Message):
    """How the tests of a pipeline judged its newest run that ended by itself."""

    total: int = 0
    passed: int = 0
    failed: int = 0
    """Those that could not be run are among them."""
    warned: int = 0


class PipelineReads(Message):
    """What the published version of a pipeline reads, and how it is doing."""

    namespace: str
    layer: str
    name: str
    is_published: bool
    reads_tables: list[PipelineName]
    reads_zones: list[str]
    """Landing zones, as `namespace/name`."""
    latest_run: LatestRun | None
    quality: QualityCount


class PipelinesRead(Message):
    """A page of pipelines with what they read. It may hold fewer than were asked for: `next_cursor` tells."""

    pipelines: list[PipelineReads]
    total: int
    next_cursor: str | None = None


class ListReads(Query[PipelinesRead], PageRequest, subject="catalog.list_reads"):
    """List pipelines, by name, with what they read."""

    namespace: Name | None = None


class ColumnSource(Message):
    """A column that another one is made of."""

    type: Literal["table", "landing_zone"]
    name: str
    """`namespace.layer.name` of a table, `namespace/name` of a landing zone."""
    column: str


class ColumnLineage(Message):
    """A column of a query, and the columns that its values come from; none where it is made of no column."""

    name: str
    sources: list[ColumnSource]


class TableLineage(Message):
    """The columns of a table, as the published query of its pipeline makes them."""

    table: PipelineName
    version: int
    """Of the pipeline."""
    columns: list[ColumnLineage]
    unknown: str | None = None
    """Why it is not known what its columns come from; they are those that main has then, and say nothing of it."""


class FindColumnLineage(Query[TableLineage], subject="catalog.find_column_lineage"):
    """Say which columns the columns of a pipeline's table come from, one step back.

    NotFound if there is no such pipeline or nothing of it is published. What they come from is unknown of a pipeline in
    Python, and of some queries: that is no error.
    """

    table: PipelineName
