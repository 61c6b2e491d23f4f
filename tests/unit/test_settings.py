"""Settings that cannot be kept are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from shared.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("postgres_url", "127.0.0.1:5432/rat"),
        ("s3_endpoint", "127.0.0.1:9000"),
        ("nessie_url", "nessie:19120"),
        ("gateway_port", 99_999),
        ("tick_interval_seconds", 0),
        ("sweep_interval_seconds", -1),
        ("log_level", "verbose"),
    ],
)
def test_what_no_service_could_work_with_is_refused_before_one_starts(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_a_level_of_logs_may_be_in_capitals() -> None:
    assert Settings.model_validate({"log_level": "WARNING"}).log_level == "warning"


def test_a_run_that_lives_is_heard_of_before_it_counts_as_dead() -> None:
    with pytest.raises(ValidationError, match=r"RAT_RUN_SILENCE_SECONDS \(120\) must be more than"):
        Settings.model_validate({"run_heartbeat_seconds": 200})


@pytest.mark.parametrize("name", ["query_timeout_seconds", "preview_timeout_seconds"])
def test_a_limit_that_is_longer_than_whoever_asks_waits_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 60"):
        Settings.model_validate({name: 200})
