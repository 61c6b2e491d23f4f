"""A run's query is run, and its rows go into the pipeline's table by the merge strategy, in one commit."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Protocol

import duckdb

from services.runner.config import Config
from services.runner.domain import FailureKind
from services.runner.engine.batch import Writing, Written
from services.runner.engine.binding import Query
from services.runner.engine.schema import Column, SchemaError, columns_of
from services.runner.engine.session import errors_of
from services.runner.engine.strategies.append_only import AppendOnly
from services.runner.engine.strategies.delete_insert import DeleteInsert
from services.runner.engine.strategies.full_refresh import FullRefresh
from services.runner.engine.strategies.incremental import Incremental
from services.runner.engine.strategies.scd2 import Scd2
from services.runner.engine.strategies.snapshot import Snapshot
from services.runner.problems import WorkFailed
from services.runner.target import Target


class _Strategy(Protocol):
    def write(self, writing: Writing) -> Written: ...


_STRATEGIES: Final[Mapping[str, _Strategy]] = {
    "full_refresh": FullRefresh(),
    "append_only": AppendOnly(),
    "incremental": Incremental(),
    "delete_insert": DeleteInsert(),
    "scd2": Scd2(),
    "snapshot": Snapshot(),
}


def write(
    connection: duckdb.DuckDBPyConnection, bound: Query, target: Target, config: Config, started_at: datetime
) -> Written:
    """Run the query and bring its rows into the table as the config says, in one commit.

    Raises `WorkFailed`; then nothing but files that no table knows is left behind.
    """
    strategy = _STRATEGIES[config.merge_strategy]
    try:
        columns = _columns(connection, bound)
        table = target.load(config.merge_strategy)
        return strategy.write(Writing(connection, bound, columns, target, table, config, started_at))
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


def _columns(connection: duckdb.DuckDBPyConnection, bound: Query) -> list[Column]:
    with errors_of(bound, "describe (\n"):
        return columns_of(connection, f"(\n{bound.sql}\n)")
