"""The write step of runs, driven directly: one table after another, written run after run on a branch."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import duckdb
from pyiceberg.table import Table

from contracts.names import Qualified
from services.runner.config import Config
from services.runner.engine.batch import Written
from services.runner.engine.binding import bind
from services.runner.engine.session import open_connection
from services.runner.engine.statement import parse
from services.runner.engine.write import write
from services.runner.target import Target
from services.runner.template import Facts, render
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from shared.settings import Settings

NewTable: TypeAlias = Callable[[], "WrittenTable"]
"""Names a table that nobody has written yet."""

FIRST_RUN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class WrittenTable:
    """The table of a pipeline, and how its next run writes it."""

    connection: duckdb.DuckDBPyConnection
    catalog: BranchCatalog
    name: Qualified
    pipeline_id: UUID = field(default_factory=uuid4)
    next_run: datetime = FIRST_RUN
    warnings: list[str] = field(default_factory=list)
    """What its runs were warned of."""

    def write(self, sql: str, strategy: str = "full_refresh", **config: Any) -> Written:
        """Do the write step of a run with this query; `$this` in it is the table as it is before."""
        started_at, self.next_run = self.next_run, self.next_run + timedelta(hours=1)
        present = self.catalog.relation(self.name)
        target = Target(self.catalog, self.name, self.pipeline_id, uuid4(), present.location if present else None)
        facts = Facts(uuid4(), started_at, self.name, strategy, lambda: True)
        relation = self.relation() if "$this" in sql else ""
        bound = bind(parse(self.connection, render("pipeline.sql", sql.replace("$this", relation), facts)), {}, {}, "")
        settings = Config(merge_strategy=strategy, **config)
        return write(self.connection, bound, target, settings, started_at, warn=self.warnings.append)

    @property
    def table(self) -> Table:
        return self.catalog.load_table(tuple(self.name))

    def relation(self) -> str:
        return f"iceberg_scan('{self.table.metadata_location}')"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that a query finds in `t`, the table as it is."""
        rows: list[tuple[Any, ...]] = self.connection.execute(f"with t as (from {self.relation()}) {sql}").fetchall()
        return rows

    def files(self) -> set[str]:
        """The locations of its data files."""
        return {task.file.file_path for task in self.table.scan().plan_files()}


@asynccontextmanager
async def written_tables(settings: Settings, spill_directory: Path) -> AsyncIterator[NewTable]:
    """New tables, one after another, on a branch of their own, as the process of a run writes them."""
    async with lakehouse(settings, "runner") as lake:
        await lake.ensure_namespace("test", "bronze")
        branch = f"run-{uuid4()}-1"
        await lake.create_branch(branch)
        with (
            open_connection(settings, threads=2, spill_directory=str(spill_directory)) as connection,
            catalogs(settings, "runner") as catalog_of,
        ):
            catalog = catalog_of(branch)
            yield lambda: WrittenTable(connection, catalog, Qualified("test", "bronze", f"t{uuid4().hex[:10]}"))
