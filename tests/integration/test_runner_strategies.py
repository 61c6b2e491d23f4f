"""Runs write their table by the strategy that their config names, from request to main, over the real servers."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.runs import AttemptFinished, ErrorKind
from infra.stacks.stack import Stack
from services.runner.service import serve
from tests.running import Surroundings, surroundings, table_name

VALUES = "select * from (values {}) v(id, day, x)"
FIRST = VALUES.format("(1, 'mon', 'a'), (2, 'mon', 'b'), (null, 'tue', 'n')")
SECOND = VALUES.format("(2, 'mon', 'B'), (2, 'mon', 'BB'), (null, 'wed', 'N'), (3, 'tue', 'c')")


@pytest.fixture(scope="module")
async def around(stack: Stack) -> AsyncIterator[Surroundings]:
    settings = stack.settings.model_copy(update={"runner_workers": 2})
    async with surroundings(settings) as around, serve(settings):
        yield around


async def runs(around: Surroundings, config: str, *queries: str) -> tuple[str, list[AttemptFinished]]:
    """The pipeline's table after a run for each of the queries, and how they ended."""
    name, pipeline_id = table_name(), uuid4()
    ends = []
    for sql in queries:
        run = await around.request(sql, pipeline=name, pipeline_id=pipeline_id, config=config)
        ends.append(await around.finished(run, within=60))
        assert await around.merges(run) <= 1
    return name, ends


@pytest.mark.parametrize(
    ("config", "written", "rows"),
    [
        ("", 4, [(2, "mon", "B"), (2, "mon", "BB"), (3, "tue", "c"), (None, "wed", "N")]),
        (
            "merge_strategy: append_only",
            4,
            [
                (1, "mon", "a"),
                (2, "mon", "B"),
                (2, "mon", "BB"),
                (2, "mon", "b"),
                (3, "tue", "c"),
                (None, "tue", "n"),
                (None, "wed", "N"),
            ],
        ),
        (
            "merge_strategy: incremental\nunique_key: id",
            3,
            [(1, "mon", "a"), (2, "mon", "BB"), (3, "tue", "c"), (None, "wed", "N")],
        ),
        (
            "merge_strategy: delete_insert\nunique_key: [id]\npartition_by: bucket(4, id), day",
            4,
            [(1, "mon", "a"), (2, "mon", "B"), (2, "mon", "BB"), (3, "tue", "c"), (None, "wed", "N")],
        ),
        (
            "merge_strategy: snapshot\npartition_column: day",
            4,
            [(2, "mon", "B"), (2, "mon", "BB"), (3, "tue", "c"), (None, "wed", "N")],
        ),
    ],
)
async def test_a_strategy_is_what_the_config_says(
    around: Surroundings, config: str, written: int, rows: list[tuple[object, ...]]
) -> None:
    name, ends = await runs(around, config, FIRST, SECOND)

    assert [end.error for end in ends] == [None, None]
    assert ends[1].rows_written == written
    assert await around.rows(name, "from t order by id nulls last, day, x") == rows


async def test_history_is_kept_and_the_same_input_again_changes_nothing(around: Surroundings) -> None:
    config = "merge_strategy: scd2\nunique_key: id\nscd_valid_from: since\nscd_valid_to: until\nclose_missing: true"

    name, ends = await runs(around, config, FIRST, SECOND, SECOND)

    assert [end.error for end in ends] == [None, None, None]
    # Two keys change, one is missing and one is new; then nothing is written, and nothing is there to merge.
    assert [(end.rows_written, len(end.tables)) for end in ends] == [(3, 1), (6, 1), (0, 0)]
    assert await around.rows(name, "select id, x, until is null, is_current from t order by id nulls last, since") == [
        (1, "a", False, False),
        (2, "b", False, False),
        (2, "BB", True, True),
        (3, "c", True, True),
        (None, "n", False, False),
        (None, "N", True, True),
    ]
    assert await around.rows(name, "select count(*) from t a join t b on a.until = b.since") != [(0,)]


async def test_a_query_that_does_not_fit_its_table_fails_and_says_why(around: Surroundings) -> None:
    config = "merge_strategy: incremental\nunique_key: id\non_schema_change: fail"

    _, ends = await runs(around, config, "select 1 as id", "select 1 as id, 2 as more", "select 'a' as id")

    assert [end.error_kind for end in ends] == [None, ErrorKind.SCHEMA, ErrorKind.SCHEMA]
    assert ends[1].error == "on_schema_change is fail, and the columns have changed: 'more' (int) is not in the table"
    assert "'id' is int in the table and string (VARCHAR) in the query" in (ends[2].error or "")
