"""Settings that cannot be kept are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.given import unknown_settings
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


def test_what_is_called_like_a_setting_and_is_none_is_told_with_what_was_meant() -> None:
    given = ["RAT_RUNNER_WORKERS", "RAT_RUNNER_WORKRES", "rat_log_levle", "RAT_ZZZ", "RAT_URL", "PATH", "RATIO"]

    assert unknown_settings(given) == [
        "RAT_RUNNER_WORKRES, did you mean RAT_RUNNER_WORKERS?",
        "RAT_ZZZ",
        "rat_log_levle, did you mean RAT_LOG_LEVEL?",
    ]


def test_what_compose_reads_and_sets_is_known() -> None:
    compose = (Path(__file__).parents[2] / "compose.yaml").read_text()

    names = set(re.findall(r"RAT_[A-Z0-9_]+", compose))

    assert "RAT_PUBLISH" in names
    assert unknown_settings(names) == []
