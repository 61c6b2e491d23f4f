"""What is said and kept of an attempt: its report in S3, and the event that ends its run."""

from collections.abc import Sequence
from typing import Final

from contracts.names import Qualified
from contracts.reports import AttemptReport, QualityResult
from contracts.runs import AttemptFinished, EndRun, LogLine, QualityCounts, RunStatus, WrittenTable
from shared.lakehouse.port import Merged

LAST_LOG_LINES: Final = 100
LAST_LOG_BYTES: Final = 100_000
LONGEST_LINE: Final = 500
LONGEST_ERROR: Final = 8000
LONGEST_REPORT: Final = 50_000
"""Of one that goes with the message: catalog need not ask the store for it then."""


def report_key(pipeline: Qualified, run_id: object, attempt: int) -> str:
    """Where the report of an attempt lies."""
    return f"{pipeline.namespace}/runs/{run_id}/{attempt}.json"


def logs_key(pipeline: Qualified, run_id: object, attempt: int) -> str:
    """Where the log of an attempt lies."""
    return f"{pipeline.namespace}/logs/{run_id}/{attempt}.jsonl"


def finished(
    report: AttemptReport,
    *,
    merged: Merged | None,
    lines: Sequence[LogLine] = (),
) -> AttemptFinished:
    """The end of a run as its attempt reports it, with the log, which the report does not have."""
    pipeline = Qualified.parse(report.pipeline)
    text = report.model_dump_json()
    return AttemptFinished(
        run_id=report.run_id,
        attempt=report.attempt,
        status=report.status,
        error=None if report.error is None else storable(report.error)[:LONGEST_ERROR],
        error_kind=report.error_kind,
        branch=report.branch,
        rows_written=report.rows_written,
        phases=report.phases,
        quality=counts(report.quality),
        files_read=report.files_read,
        tables=written_tables(merged),
        merged_at=None if merged is None else merged.at,
        report_key=report_key(pipeline, report.run_id, report.attempt),
        report=text if len(text.encode()) <= LONGEST_REPORT else None,
        logs_key=report.logs_key,
        last_log_lines=last_lines(lines),
    )


def storable(text: str) -> str:
    """The text as PostgreSQL keeps it: without NUL, which an author's data may have brought into a message."""
    return text.replace("\0", "�")


def last_lines(lines: Sequence[LogLine]) -> list[LogLine]:
    """The end of a log, as much of it as an event takes."""
    kept: list[LogLine] = []
    size = 0
    for line in reversed(lines[-LAST_LOG_LINES:]):
        short = line.model_copy(update={"message": storable(line.message)[:LONGEST_LINE]})
        size += len(short.model_dump_json().encode())
        if size > LAST_LOG_BYTES:
            break
        kept.append(short)
    return kept[::-1]


def ended(order: EndRun) -> AttemptFinished:
    """The end of a run as catalog ordered it."""
    return AttemptFinished(
        run_id=order.run_id,
        attempt=order.attempt,
        status=order.status,
        error=order.error,
        error_kind=order.error_kind,
    )


def success_without_report(pipeline: Qualified, merged: Merged) -> AttemptReport:
    """What is known of a run that is on main, if its report was taken away."""
    assert merged.run_id is not None
    assert merged.attempt is not None
    return AttemptReport(run_id=merged.run_id, attempt=merged.attempt, pipeline=str(pipeline), status=RunStatus.SUCCESS)


def written_tables(merged: Merged | None) -> list[WrittenTable]:
    """The tables that a merge put on main."""
    if merged is None:
        return []
    return [
        WrittenTable(table=str(table), snapshot=merged.snapshot)
        for table, location in merged.tables.items()
        if location is not None
    ]


def counts(results: Sequence[QualityResult]) -> QualityCounts:
    """How many tests judged the branch, and how."""
    statuses = [result.status for result in results]
    return QualityCounts(
        total=len(statuses),
        passed=statuses.count("passed"),
        failed=statuses.count("failed"),
        warned=statuses.count("warned"),
        errored=statuses.count("error"),
    )
