"""What an author's code gives as its result, as a query that DuckDB runs."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import pyarrow as pa

from services.runner.problems import Problem
from services.runner.python.source import PYTHON_FILE

_NAME: Final = "__rat_result__"
_SOUGHT: Final = "a DuckDB relation, an Arrow table or reader, or a pandas or polars frame"


class UnknownResult(Exception):
    """The code gave something that cannot be written; the message says what was expected."""


@dataclass
class Given:
    """The result of the code: a query, and the connection that can run it, once."""

    connection: duckdb.DuckDBPyConnection
    kept: object
    """What the query reads; it must outlive it."""
    sql: str = f'from "{_NAME}"'
    broken_by: list[BaseException] = field(default_factory=list)
    """What the author's own code raised while the rows were read of it."""

    def problem(self, message: str, position: int | None) -> Problem:
        """A problem with the result; where in the code it comes from is not known."""
        return Problem(PYTHON_FILE, message)


def given(result: object, authors: duckdb.DuckDBPyConnection, own: duckdb.DuckDBPyConnection) -> Given:
    """The rows of a result; `UnknownResult` if it is none.

    `authors` is the connection that the code had, `own` another one on the same database: what the author's connection
    streams ends, without a word, as soon as that connection does anything else.
    """
    match result:
        case duckdb.DuckDBPyRelation():
            return _relation(result, authors, own)
        case duckdb.DuckDBPyConnection():
            if result.description is None:
                raise UnknownResult(f"the result is a connection without a query; expected {_SOUGHT}")
            return _reader(result.to_arrow_reader(), own)
        case pa.RecordBatchReader():
            return _reader(result, own)
        case pa.RecordBatch():
            return _registered(pa.Table.from_batches([result]), own)
        case pa.Table():
            return _registered(result, own)
    if _is_frame(result):
        return _registered(_with_named_columns(result), own)
    with suppress(pa.ArrowInvalid):
        # A column alone is a stream too, and not of rows.
        if hasattr(result, "__arrow_c_stream__"):
            return _reader(pa.RecordBatchReader.from_stream(result), own)
    raise UnknownResult(f"the result is {_shown(result)}; expected {_SOUGHT}")


def _shown(result: object) -> str:
    match result:
        case None:
            return "nothing (None)"
        case [dict(), *_]:
            return "a list of dicts (`pa.Table.from_pylist(rows)` makes a table of it)"
        case str():
            return "a str (`ctx.duckdb.sql(text)` makes a relation of a query)"
        case _:
            return f"a {type(result).__name__}"


def _relation(
    relation: duckdb.DuckDBPyRelation, authors: duckdb.DuckDBPyConnection, own: duckdb.DuckDBPyConnection
) -> Given:
    relation.create_view(_NAME, replace=True)
    try:
        authors.execute("set session errors_as_json = true")
        authors.execute(f'describe from "{_NAME}"').fetchall()
    except (duckdb.CatalogException, duckdb.ConnectionException):
        # It belongs to a database that the author has opened.
        return _reader(relation.to_arrow_reader(), own)
    return Given(authors, relation)


def _registered(rows: Any, own: duckdb.DuckDBPyConnection) -> Given:
    own.register(_NAME, rows)
    return Given(own, rows)


def _reader(reader: pa.RecordBatchReader, own: duckdb.DuckDBPyConnection) -> Given:
    made = Given(own, reader)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except BaseException as error:
            made.broken_by.append(error)
            raise

    own.register(_NAME, pa.RecordBatchReader.from_batches(reader.schema, batches()))
    return made


# Frames: neither library is imported here, only looked for


def _is_frame(result: object) -> bool:
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    return (pandas is not None and isinstance(result, pandas.DataFrame)) or (
        polars is not None and isinstance(result, polars.DataFrame | polars.LazyFrame)
    )


def _with_named_columns(frame: Any) -> Any:
    """A frame as DuckDB reads it: a LazyFrame is worked out, an index with a name becomes columns."""
    if hasattr(frame, "collect"):
        return frame.collect()
    index = getattr(frame, "index", None)
    if index is not None and any(name is not None for name in index.names):
        return frame.reset_index()
    return frame
