"""DuckDB in the process of a run: opened once, used for one attempt at a time."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import duckdb

from services.runner.domain import FailureKind
from services.runner.engine.binding import Query
from services.runner.engine.messages import about_quotes, named_once, reworded
from services.runner.problems import Problem, WorkFailed
from shared import duckdb_engine
from shared.settings import Settings

_PART_BYTES: Final = 5_243_000
_THREAD_BYTES: Final = 125_000_000
"""Of memory there is for each thread: with less, what they read and write at once leaves a join or a sort none."""
_UPLOADED_SHARE: Final = 10
"""Of the memory, this part may be on its way to the store; without a limit, a slow store would fill it."""
_UNANSWERED: Final = re.compile(r"(.*) error for HTTP [A-Z]+ to ")
"""A request without an answer, as libcurl puts it: refused, reset, timed out."""
_TIMED_OUT: Final = "Timeout was reached"
_REFUSED_FOR_NOW: Final = re.compile(r"\bHTTP (5\d\d|429|408)\b|\(HTTP code (5\d\d|429|408)\)|SlowDown")


def open_connection(settings: Settings, *, threads: int, spill_directory: str) -> duckdb.DuckDBPyConnection:
    """Open DuckDB with the keys of the runner: it reads and writes the platform's bucket and nothing else."""
    connection = duckdb_engine.connect(settings, "runner", threads=threads, temp_directory=spill_directory)
    connection.execute("set global errors_as_json = true")
    # What is uploaded is held in memory part by part: of a file this large a part is 5 MB, by default it is 80.
    connection.execute("set global s3_uploader_max_filesize = '50GB'")
    connection.execute(f"set global allowed_directories = ['s3://{settings.s3_bucket}/']")
    connection.execute("set global enable_external_access = false")
    return connection


def open_connection_for_code(
    settings: Settings, *, threads: int, spill_directory: str, memory_limit_bytes: int
) -> duckdb.DuckDBPyConnection:
    """Open DuckDB for an author's Python, which may look at whatever that process may: frames, tables, files."""
    connection = duckdb_engine.connect(settings, "runner", threads=threads, temp_directory=spill_directory)
    connection.execute("set global errors_as_json = true")
    limit_memory(connection, memory_limit_bytes)
    return connection


def limit_memory(connection: duckdb.DuckDBPyConnection, limit_bytes: int) -> None:
    """Keep what DuckDB holds in memory below this, spilling to disk beyond it, with no more threads than it is for."""
    connection.execute(f"set global memory_limit = '{limit_bytes // 1000}kB'")
    threads = max(1, min(limit_bytes // _THREAD_BYTES, os.cpu_count() or 1))
    connection.execute(f"set global threads = {threads}")
    parts = max(1, min(limit_bytes // _UPLOADED_SHARE // _PART_BYTES, 50))
    connection.execute(f"set global s3_uploader_thread_limit = {parts}")


@contextmanager
def errors_of(bound: Query, prefix: str = "") -> Iterator[None]:
    """Raise what DuckDB says of a statement as `WorkFailed`, with the place in the author's file.

    `prefix` is what stands before the statement in the text that DuckDB got.
    """
    try:
        yield
    except duckdb.Error as error:
        raise failure(error, bound, prefix) from error


def failure(error: duckdb.Error, bound: Query, prefix: str = "") -> WorkFailed:
    """What an error of DuckDB means for the attempt."""
    message, position = told(error)
    kind = kind_of(error, message)
    if kind is not FailureKind.SQL:
        return WorkFailed(kind, _in_short(kind, message))
    in_statement = None if position is None else position - len(prefix.encode())
    in_words = reworded(message)
    if in_statement is None or not 0 <= in_statement <= len(bound.sql.encode()):
        in_statement = named_once(in_words, bound.sql)
    problem: Problem = bound.problem(in_words + about_quotes(in_words, bound.sql, in_statement), in_statement)
    return WorkFailed(kind, str(problem))


def failure_of_ours(error: duckdb.Error) -> WorkFailed:
    """What an error of a statement that no author wrote means for the attempt."""
    message, _ = told(error)
    kind = kind_of(error, message)
    return WorkFailed(FailureKind.INTERNAL if kind is FailureKind.SQL else kind, _in_short(kind, message))


def _in_short(kind: FailureKind, message: str) -> str:
    """The message without the advice for whoever sets DuckDB up, which follows where memory ran out."""
    return message.partition("\n")[0] if kind is FailureKind.MEMORY else message


def told(error: duckdb.Error) -> tuple[str, int | None]:
    """DuckDB's own message, and the byte of the statement that it is about."""
    text = str(error)
    found = re.match(r"(?:[A-Z][\w ]* Error: )?(\{.*\})", text, re.DOTALL)
    if found is None:
        return text, None
    try:
        fields: dict[str, Any] = json.loads(found[1], strict=False)
    except ValueError:
        return text, None
    position = fields.get("position")
    return f"{fields['exception_type']} error: {fields['exception_message']}", int(position) if position else None


def kind_of(error: duckdb.Error, message: str) -> FailureKind:
    """Whose fault an error is: the author's, a server's, or ours."""
    match error:
        case duckdb.OutOfMemoryException():
            return FailureKind.MEMORY
        case duckdb.HTTPException() | duckdb.IOException() if found := _UNANSWERED.search(message):
            return FailureKind.TRANSIENT if _TIMED_OUT in found[1] else FailureKind.UNAVAILABLE
        case duckdb.HTTPException() | duckdb.IOException() if _REFUSED_FOR_NOW.search(message):
            return FailureKind.TRANSIENT
        case duckdb.InterruptException():
            # The runner has asked for it, and does not wait for what comes of it.
            return FailureKind.CANCELLED
        case duckdb.InternalException() | duckdb.FatalException():
            return FailureKind.INTERNAL
        case _:
            return FailureKind.SQL
