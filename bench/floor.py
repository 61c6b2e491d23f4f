"""The floor: the same work by hand over the same servers, with DuckDB and PyIceberg and without the platform."""

import time
from collections.abc import Callable
from uuid import uuid4

import pyarrow as pa
from pyiceberg.catalog import Catalog

from contracts.names import Qualified
from shared.duckdb_engine import connect
from shared.lakehouse.port import Lakehouse
from shared.settings import Settings

CSV_ROWS = 10_000


class Floor:
    """What a straightforward script does: branch, query, write through Arrow, test, merge."""

    def __init__(self, settings: Settings, lakehouse: Lakehouse, catalog: Callable[[str], Catalog]) -> None:
        self.settings = settings
        self.lakehouse = lakehouse
        self.catalog = catalog
        self.duckdb = connect(settings, "runner")

    async def run(self, table: Qualified, sql: str, tests: list[str]) -> float:
        """Do one run by hand; seconds."""
        begun = time.perf_counter()
        run_id = uuid4()
        branch = f"run-{run_id}-1"
        await self.lakehouse.ensure_namespace(table.namespace, table.layer)
        await self.lakehouse.create_branch(branch)
        rows = self.duckdb.execute(sql).to_arrow_table()
        location = self._write(self.catalog(branch), table, rows)
        for test in tests:
            found = self.duckdb.execute(test.format(this=f"iceberg_scan('{location}')")).fetchall()
            if found:
                raise AssertionError(f"{test} found {found}")
        await self.lakehouse.merge(branch, run_id, 1)
        return time.perf_counter() - begun

    def _write(self, catalog: Catalog, table: Qualified, rows: pa.Table) -> str:
        if catalog.table_exists(table):
            written = catalog.load_table(table)
            written.overwrite(rows)
        else:
            written = catalog.create_table(table, rows.schema)
            written.append(rows)
        return written.metadata_location


def csv_text() -> str:
    """A CSV with 10 000 rows of five columns."""
    lines = ["id,customer,amount,day,note"]
    lines += [
        f"{number},customer {number % 700},{number % 1000}.25,2026-01-{number % 28 + 1:02d},note {number}"
        for number in range(CSV_ROWS)
    ]
    return "\n".join(lines) + "\n"


def scale_sql(rows: int) -> str:
    """A query of five columns that gives so many rows and does not compress to nothing."""
    return f"""
select range as id, (hash(range) % 1000000)::bigint as customer,
  ((hash(range + 1) % 100000) / 100)::double as amount,
  (date '2020-01-01' + (range % 2000)::integer)::date as day,
  'order ' || (hash(range + 2) % 1000000000) as note
from range({rows})
"""
