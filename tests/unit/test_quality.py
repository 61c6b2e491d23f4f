"""Quality tests count what they find, show the first of it, and judge as their header says."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID

import duckdb
import pytest
from duckdb.sqltypes import BIGINT

from contracts.names import Qualified
from contracts.reports import Severity
from services.runner.config import QualityHeader, Strategy
from services.runner.engine.binding import bind
from services.runner.engine.quality import TIMEOUT_SECONDS, QualityTest, run_tests
from services.runner.engine.samples import SAMPLE_ROWS, json_safe
from services.runner.engine.statement import parse
from services.runner.template import Facts, render

FACTS = Facts(
    run_id=UUID(int=1),
    run_started_at=datetime(2026, 1, 1, tzinfo=UTC),
    pipeline=Qualified("default", "bronze", "mine"),
    strategy=Strategy.FULL_REFRESH,
    is_incremental=lambda: False,
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set global errors_as_json = true")
        yield connection


def quality_test(
    connection: duckdb.DuckDBPyConnection, sql: str, severity: Severity = Severity.ERROR, name: str = "one"
) -> QualityTest:
    statement = parse(connection, render(f"tests/quality/{name}.sql", sql, FACTS))
    return QualityTest(name, QualityHeader(severity=severity), bind(statement, {}, {}, "rat"))


def test_no_rows_pass_and_any_row_fails_or_warns(connection: duckdb.DuckDBPyConnection) -> None:
    tests = [
        quality_test(connection, "select 1 where false"),
        quality_test(connection, "select range as id from range(50000)"),
        quality_test(connection, "select 1 as id", Severity.WARN),
    ]

    passed, failed, warned = run_tests(connection, tests, threads=2)

    assert (passed.status, passed.value, passed.sample_rows) == ("passed", 0, [])
    assert (failed.status, failed.value) == ("failed", 50_000)
    assert failed.sample_rows == [{"id": number} for number in range(20)]
    assert (warned.status, warned.value) == ("warned", 1)


def test_what_keeps_a_test_from_running_is_its_result(connection: duckdb.DuckDBPyConnection) -> None:
    tests = [
        quality_test(connection, "select 1,\n nothing"),
        quality_test(connection, "select cast('x' as int)", Severity.WARN),
        QualityTest("three", QualityHeader(), "tests/quality/three.sql:1: 'x' is undefined"),
    ]

    results = run_tests(connection, tests, threads=1)

    assert [(result.status, result.value) for result in results] == [("error", None)] * 3
    assert (results[0].message or "").startswith(
        'tests/quality/one.sql:2:2: there is no column "nothing", as the query has no FROM'
    )
    assert (results[1].message or "").endswith("Could not convert string 'x' to INT32")
    assert results[2].message == "tests/quality/three.sql:1: 'x' is undefined"


def test_a_test_that_takes_too_long_is_interrupted_alone(connection: duckdb.DuckDBPyConnection) -> None:
    slow = "select count(*) from range(100000000) a, range(1000) b where hash(a.range + b.range) = 1"
    tests = [quality_test(connection, slow), quality_test(connection, "select 1 where false")]

    late, passed = run_tests(connection, tests, threads=2, timeout_seconds=3)

    assert TIMEOUT_SECONDS == 60, "which is what a test has if nothing else is said"
    assert (late.status, late.message) == ("error", "took longer than 3 s")
    assert passed.status == "passed"


def test_tests_run_at_the_same_time_up_to_the_threads_of_the_run(connection: duckdb.DuckDBPyConnection) -> None:
    both = Barrier(2, timeout=120)
    alone: list[int] = []
    at_work: list[int] = []

    def meet(value: int) -> int:
        """Wait for the other test."""
        both.wait()
        return value

    def count(value: int) -> int:
        """Say how many are at work."""
        at_work.append(value)
        alone.append(len(at_work))
        at_work.remove(value)
        return value

    connection.create_function("meet", meet, [BIGINT], BIGINT)  # type: ignore[arg-type]
    connection.create_function("count_those_at_work", count, [BIGINT], BIGINT)  # type: ignore[arg-type]
    tests = [quality_test(connection, f"select {number} as id where meet({number}) < 0") for number in (1, 2)]
    others = [quality_test(connection, f"select 1 where count_those_at_work({number}) < 0") for number in range(8)]

    together = run_tests(connection, tests, threads=2)
    one_by_one = run_tests(connection, others, threads=1)

    assert [result.status for result in together] == ["passed", "passed"]
    assert [result.status for result in one_by_one] == ["passed"] * 8
    assert set(alone) == {1}


def test_values_are_shown_without_loss() -> None:
    shown = json_safe(
        {
            "big": 2**53 + 1,
            "small": -(2**53),
            "exact": Decimal("1.10"),
            "nothing": [None, True, float("nan"), float("-inf"), 0.5],
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            "bytes": b"\xff",
            "map": [("k", UUID(int=1))],
            "nul": "a\0",
        }
    )

    assert shown == {
        "big": "9007199254740993",
        "small": -9007199254740992,
        "exact": "1.10",
        "nothing": [None, True, "nan", "-inf", 0.5],
        "time": "2026-01-01T00:00:00+00:00",
        "bytes": "ff",
        "map": [["k", "00000000-0000-0000-0000-000000000001"]],
        "nul": "a\ufffd",
    }
    assert json_safe("x" * 2000) == "x" * 1000 + "…"


@pytest.mark.parametrize(
    ("row", "kept", "cut"),
    [
        ("select range(100_000) as numbers from range(50)", "numbers", lambda value: value[-1]),
        ("select {'deep': {'er': range(100_000)}} as deep from range(50)", "deep", lambda one: one["deep"]["er"][-1]),
        ("select map(range(5000), range(5000)) as pairs from range(50)", "pairs", lambda value: value[-1]),
        (f"select {', '.join(f'{n} as c{n}' for n in range(5000))}", "c0", None),
        ("select [repeat('x', 900), repeat('y', 900)] as texts from range(50)", "texts", None),
    ],
)
def test_what_a_test_finds_is_shown_in_short_however_large_it_is(
    connection: duckdb.DuckDBPyConnection, row: str, kept: str, cut: Any
) -> None:
    [found] = run_tests(connection, [quality_test(connection, row)], threads=1)

    assert found.value in (1, 50)
    assert 0 < len(found.sample_rows) <= SAMPLE_ROWS
    assert len(json.dumps(found.sample_rows)) < 25_000
    assert kept in found.sample_rows[0]
    if cut is not None:
        assert re.fullmatch(r"… \d+ more", cut(found.sample_rows[0][kept]))
    if kept == "c0":
        assert found.sample_rows[0]["…"] == f"{5000 - len(found.sample_rows[0]) + 1} more"


def test_what_python_has_no_value_for_is_shown_as_text(connection: duckdb.DuckDBPyConnection) -> None:
    sql = """
        select 'infinity'::timestamp as ever, '-infinity'::date as never, 'infinity'::timestamptz as zoned,
          '0044-03-15 (BC)'::date as ides, '12026-01-01'::date as far,
          timestamp_ns '2026-01-01 00:00:00.000000001' as exact,
          ['infinity'::date, null] as listed, {'at': 'infinity'::date, 'n': 1} as kept, null::date[] as nothing
    """

    [result] = run_tests(connection, [quality_test(connection, sql)], threads=1)

    assert (result.status, result.value) == ("failed", 1)
    assert result.sample_rows == [
        {
            "ever": "infinity",
            "never": "-infinity",
            "zoned": "infinity",
            "ides": "-0043-03-15",
            "far": "12026-01-01",
            "exact": "2026-01-01T00:00:00.000000001",
            "listed": ["infinity", None],
            "kept": {"at": "infinity", "n": 1},
            "nothing": None,
        }
    ]
