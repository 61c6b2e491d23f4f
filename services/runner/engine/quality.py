"""Quality tests: queries that find violations, run on the branch before anybody else sees it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Timer
from time import perf_counter
from typing import Any, Final

import duckdb

from contracts.reports import QualityResult, Severity
from services.runner.config import QualityHeader
from services.runner.domain import FailureKind
from services.runner.engine.binding import Bound
from services.runner.engine.samples import SAMPLE_ROWS, rows_of, sample_of
from services.runner.engine.session import failure
from services.runner.problems import WorkFailed

TIMEOUT_SECONDS: Final = 60.0
LONGEST_MESSAGE: Final = 4000
_BATCH_ROWS: Final = 2048


@dataclass(frozen=True)
class QualityTest:
    """A test of a pipeline, ready to run, or what is wrong with its file."""

    name: str
    header: QualityHeader
    bound: Bound | str


def run_tests(
    connection: duckdb.DuckDBPyConnection,
    tests: Sequence[QualityTest],
    *,
    threads: int,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[QualityResult]:
    """Run all tests, several at a time.

    What is wrong with a test is its own result; `WorkFailed` when a server, or the memory, is what failed it.
    """
    if not tests:
        return []
    with ThreadPoolExecutor(max_workers=min(threads, len(tests)), thread_name_prefix="test") as executor:
        return list(executor.map(lambda test: _run(connection.cursor(), test, timeout_seconds), tests))


def _run(cursor: duckdb.DuckDBPyConnection, test: QualityTest, timeout_seconds: float) -> QualityResult:
    began = perf_counter()
    violations: int = 0
    sample: list[dict[str, Any]] = []
    message = test.bound if isinstance(test.bound, str) else None
    try:
        if not isinstance(test.bound, str):
            violations, sample = _violations(cursor, test.bound, timeout_seconds)
    except TimeoutError as error:
        message = str(error)
    except WorkFailed as error:
        if error.kind is not FailureKind.SQL:
            raise WorkFailed(error.kind, f"test {test.name}: {error.message}") from error
        message = error.message
    return QualityResult(
        name=test.name,
        status=_status(test.header.severity, violations, has_failed=message is not None),
        severity=test.header.severity,
        value=None if message is not None else violations,
        duration_ms=round((perf_counter() - began) * 1000, 3),
        sample_rows=sample,
        description=test.header.description or None,
        compiled_sql=None if isinstance(test.bound, str) else test.bound.sql,
        message=message and message.replace("\0", "�")[:LONGEST_MESSAGE],
    )


def _status(severity: Severity, violations: int, *, has_failed: bool) -> Any:
    if has_failed:
        return "error"
    if violations == 0:
        return "passed"
    return "warned" if severity is Severity.WARN else "failed"


def _violations(
    cursor: duckdb.DuckDBPyConnection, bound: Bound, timeout_seconds: float
) -> tuple[int, list[dict[str, Any]]]:
    """How many rows the query finds, and the first of them; the rows are counted as they come, never kept."""
    with _interrupted_after(cursor, timeout_seconds) as is_late:
        try:
            reader = cursor.execute(bound.sql).to_arrow_reader(_BATCH_ROWS)
            count = 0
            sample: list[dict[str, Any]] = []
            for batch in reader:
                if len(sample) < SAMPLE_ROWS:
                    sample += rows_of(batch.slice(0, SAMPLE_ROWS - len(sample)))
                count += batch.num_rows
        except duckdb.InterruptException as error:
            if is_late.is_set():
                raise TimeoutError(f"took longer than {timeout_seconds:g} s") from error
            raise failure(error, bound) from error
        except duckdb.Error as error:
            raise failure(error, bound) from error
    return count, sample_of(sample)


@contextmanager
def _interrupted_after(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[Event]:
    is_late = Event()

    def interrupt() -> None:
        is_late.set()
        cursor.interrupt()

    timer = Timer(seconds, interrupt)
    timer.start()
    try:
        yield is_late
    finally:
        timer.cancel()
