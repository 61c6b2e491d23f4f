"""What is said at the end of a run, made of the report of its attempt."""

from uuid import UUID

import pytest

from contracts.messages import Event
from contracts.reports import AttemptReport, QualityResult
from contracts.runs import RunStatus
from services.runner import report
from shared.bus import MAX_MESSAGE_BYTES, event_body


def report_of(*quality: QualityResult) -> AttemptReport:
    return AttemptReport(
        run_id=UUID(int=1), attempt=1, pipeline="default.bronze.orders", status=RunStatus.SUCCESS, quality=list(quality)
    )


def size(event: Event) -> int:
    return len(event_body(event))


def test_a_small_report_goes_with_the_end_of_its_run() -> None:
    kept = report_of(QualityResult(name="unique", status="passed"))

    said = report.finished(kept, merged=None)

    assert said.report is not None
    assert AttemptReport.model_validate_json(said.report) == kept


@pytest.mark.parametrize("sign", ["x", '"', "\n", "\\", "ß", "\x01"])
def test_a_report_does_not_make_the_end_larger_than_a_message_may_be(sign: str) -> None:
    fits = report_of(QualityResult(name="sql", status="passed", compiled_sql=sign * (report.LONGEST_REPORT // 8)))
    large = report_of(QualityResult(name="sql", status="passed", compiled_sql=sign * report.LONGEST_REPORT))

    assert report.finished(large, merged=None).report is None
    assert report.finished(fits, merged=None).report is not None
    assert size(report.finished(fits, merged=None)) < MAX_MESSAGE_BYTES - report.LAST_LOG_BYTES
