"""A run's query is run, and its rows go into the pipeline's table by the merge strategy, in one commit."""

from collections.abc import Callable
from datetime import datetime

import duckdb

from services.runner.config import Config, SchemaChange, plugin_of, unknown_columns
from services.runner.domain import FailureKind
from services.runner.engine.batch import Writing, Written
from services.runner.engine.binding import Query
from services.runner.engine.deleted_rows import has_deleted_rows, write_without
from services.runner.engine.schema import Column, SchemaError, columns_of, nulls_as_in_table
from services.runner.engine.session import errors_of
from services.runner.problems import AuthorError, WorkFailed
from services.runner.target import Target


def write(
    connection: duckdb.DuckDBPyConnection,
    bound: Query,
    target: Target,
    config: Config,
    started_at: datetime,
    *,
    warn: Callable[[str], None],
) -> Written:
    """Run the query and bring its rows into the table as the config says, in one commit.

    Before it there is another, of which is warned, where another engine has deleted rows without rewriting their files.
    Raises `WorkFailed`, and `AuthorError` for settings that name columns which the query does not give; then nothing
    but files that no table knows is left behind.
    """
    strategy = plugin_of(config.merge_strategy)
    try:
        columns = _columns(connection, bound)
        if problems := unknown_columns(config, [column.name for column in columns]):
            raise AuthorError(*problems)
        table = target.load(config.merge_strategy)
        if table is not None and has_deleted_rows(table):
            warn("another engine has deleted rows beside this table's files: it is written anew without them first")
            table = write_without(connection, target.catalog, target.name, table)
        if table is not None and config.on_schema_change is not SchemaChange.REPLACE:
            columns = nulls_as_in_table(connection, bound.sql, columns, table.schema())
        written: Written = strategy.write(Writing(connection, bound, columns, target, table, config, started_at))
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error
    return written


def _columns(connection: duckdb.DuckDBPyConnection, bound: Query) -> list[Column]:
    with errors_of(bound, "describe (\n"):
        return columns_of(connection, f"(\n{bound.sql}\n)")
