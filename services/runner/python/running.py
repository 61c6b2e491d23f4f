"""An author's Python, run: from its source to the rows that it gives, or to what went wrong in it, and where."""

import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import duckdb

from services.runner.domain import FailureKind
from services.runner.engine.session import kind_of, told
from services.runner.problems import AuthorError, Problem, WorkFailed
from services.runner.python.context import Context, module_of, teach_relations
from services.runner.python.result import Given, UnknownResult, given
from services.runner.python.source import MODULE, PYTHON_FILE, Source

_MOST_FRAMES: Final = 20


def run(source: Source, context: Context, own: duckdb.DuckDBPyConnection) -> Given:
    """Run the code and give its rows; `WorkFailed` says what it raised.

    Its rows may still be worked out by the code when they are read: read them under `errors_of_rows`. `own` is another
    connection on the database of the context's.
    """
    teach_relations()
    linecache.cache[PYTHON_FILE] = (len(source.text), None, source.text.splitlines(keepends=True), PYTHON_FILE)
    with _errors_of_code():
        return given(_result(source, context), context.duckdb, own)


def _result(source: Source, context: Context) -> object:
    module = sys.modules[MODULE] = module_of(source, context)
    exec(source.code, vars(module))  # noqa: S102  # it is what this process is for
    names = vars(module)
    if callable(names.get("pipeline")):
        return names["pipeline"](context)
    if "result" in names:
        return names["result"]
    message = "the code has neither defined a function `pipeline(ctx)` nor assigned `result`"
    raise AuthorError(Problem(PYTHON_FILE, message))


# What went wrong


@contextmanager
def _errors_of_code() -> Iterator[None]:
    """Raise what the author's code raises as `WorkFailed`, with its place."""
    try:
        yield
    except (WorkFailed, AuthorError):
        raise
    except UnknownResult as error:
        raise WorkFailed(FailureKind.PYTHON, str(Problem(PYTHON_FILE, str(error)))) from error
    except BaseException as error:
        # Code that calls sys.exit() fails its run, and ends nothing else.
        raise failure(error) from error


@contextmanager
def errors_of_rows(rows: Given) -> Iterator[None]:
    """Raise what the author's code has raised while its rows were read, in place of what came of that."""
    try:
        yield
    except Exception as error:
        if rows.broken_by:
            raise failure(rows.broken_by[0]) from error
        raise


def failure(error: BaseException) -> WorkFailed:
    """What an exception of an author's code means for the attempt: of the code's frames only, the last one first."""
    if isinstance(error, duckdb.Error):
        kind = kind_of(error, told(error)[0])
        if kind in (FailureKind.UNAVAILABLE, FailureKind.TRANSIENT, FailureKind.MEMORY):
            return WorkFailed(kind, f"{_place(error)}{told(error)[0]}")
    if isinstance(error, MemoryError):
        return WorkFailed(FailureKind.MEMORY, f"{_place(error)}{_said(error)}")
    message = f"{_place(error)}{_said(error)}"
    trace = "".join(_cut(traceback.TracebackException.from_exception(error)).format()).rstrip()
    return WorkFailed(FailureKind.PYTHON, f"{message}\n{trace}" if 'File "' in trace else message)


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the code ended itself by sys.exit({error.code!r})"
    return "".join(traceback.format_exception_only(error)).strip().partition("\n")[0]


def _place(error: BaseException) -> str:
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if _is_authors(frame.f_code.co_filename)]
    return f"{PYTHON_FILE}:{lines[-1]}: " if lines else f"{PYTHON_FILE}: "


def _cut(trace: traceback.TracebackException) -> traceback.TracebackException:
    """The traceback, and those of the exceptions behind it, with the author's frames only."""
    chain: list[traceback.TracebackException | None] = [trace]
    while chain:
        one = chain.pop()
        if one is None:
            continue
        frames = [frame for frame in one.stack if _is_authors(frame.filename)]
        one.stack = traceback.StackSummary.from_list(frames[-_MOST_FRAMES:])
        chain += [one.__cause__, one.__context__, *(one.exceptions or [])]
    return trace


def _is_authors(filename: str) -> bool:
    return filename == PYTHON_FILE
