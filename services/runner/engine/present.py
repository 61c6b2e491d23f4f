"""What a table holds already: whether anything, and how far it has come, as SQL."""

import duckdb

from services.runner.engine.session import failure_of_ours
from services.runner.engine.statement import identifier, string
from services.runner.template import Sql
from shared.similar import did_you_mean


def has_snapshot(connection: duckdb.DuckDBPyConnection, location: str) -> bool:
    """Whether anything was ever written to the table whose metadata is at `location`; no rows make no snapshot."""
    try:
        row = connection.execute(f"select count(*) from iceberg_snapshots({string(location)})").fetchone()
    except duckdb.Error as error:
        raise failure_of_ours(error) from error
    assert row is not None, "an aggregate has one row"
    return bool(row[0])


def watermark(connection: duckdb.DuckDBPyConnection, location: str, column: str) -> Sql | None:
    """The greatest value of a column in the table whose metadata is at `location`, None if it has none.

    It is a literal of the column's type. `LookupError` if the table has no such column, whose names count in any case.
    """
    table = f"iceberg_scan({string(location)})"
    try:
        known = [name for name, *_ in connection.execute(f"describe select * from {table}").fetchall()]
        if column.lower() not in (name.lower() for name in known):
            message = f"the table has no column {column!r}, which watermark_column names"
            raise LookupError(message + did_you_mean(column, known))
        greatest = f"max({identifier(column)})"
        row = connection.execute(f"select {greatest}::varchar, typeof({greatest}) from {table}").fetchone()
    except duckdb.Error as error:
        raise failure_of_ours(error) from error
    assert row is not None, "an aggregate has one row"
    value, kind = row
    return None if value is None else Sql(f"{string(value)}::{kind}")
