"""Rows that another engine has deleted beside the data files, which RAT itself never does."""

import duckdb
from pyiceberg.table import Table

from contracts.names import Qualified
from services.runner.engine.batch import engine_errors
from services.runner.engine.parquet import Copy
from services.runner.engine.partitions import column
from services.runner.engine.schema import duckdb_type
from services.runner.engine.statement import identifier, string
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.commit import rewrite


def has_deleted_rows(table: Table) -> bool:
    """Whether the newest snapshot counts files that say which rows of others are deleted.

    An engine need not count them. Whoever takes files apart is told then by `Commit.files`.
    """
    snapshot = table.current_snapshot()
    counted = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return counted.get("total-delete-files", "0") != "0"


def write_without(
    connection: duckdb.DuckDBPyConnection, catalog: BranchCatalog, name: Qualified, table: Table
) -> Table:
    """Write all files of a table anew as DuckDB reads it, without the deleted rows, in a commit of its own."""
    commit = rewrite(catalog, name, table)
    columns = [
        f"{identifier(field.name)}::{duckdb_type(field.field_type)} as {column(field.field_id)}"
        for field in commit.schema.fields
    ]
    with engine_errors():
        rows = f"select {', '.join(columns)} from iceberg_scan({string(table.metadata_location)})"
        added = Copy(commit, connection).run(rows)
    commit.finish(added, commit.all_files())
    return catalog.load_table(tuple(name))
