"""Other engines read tables on main, each from its metadata file alone, and what they make is read here."""

from datetime import date, datetime
from decimal import Decimal

import polars
import pytest

from contracts.names import Qualified
from contracts.runs import ErrorKind
from infra.stacks.stack import Stack
from services.runner.service import serve
from shared.lakehouse.files import s3_properties
from shared.lakehouse.port import Lakehouse
from shared.object_store import ObjectStore
from tests.running import Surroundings, surroundings
from tests.tables import upgraded

SQL = """
select i as id, 'row ' || i as name, (i / 4)::decimal(10, 2) as amount, date '2026-01-01' + i::int as day,
  timestamp '2026-01-01 12:00:00' as at, i % 2 = 0 as is_even, if(i = 3, null, i * 1.5::double) as half,
  [i, i + 1] as pair, {'a': i, 'b': {'c': 'x'}} as deep
from range(10) as numbers (i)
"""


async def test_polars_reads_what_was_written(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    async with surroundings(stack.settings) as around, serve(stack.settings):
        run = await around.request(SQL)
        assert (await around.finished(run)).error is None
        more = await around.request(
            "-- @merge_strategy: append_only\nselect 10 as id, 'late' as name, 1 as new",
            pipeline=run.pipeline,
            pipeline_id=run.pipeline_id,
        )
        assert (await around.finished(more)).error is None
        location = await location_of(around, run.pipeline)
        expected = await around.rows(run.pipeline, "select * from t order by id")

    frame = polars.scan_iceberg(location, storage_options=s3_properties(stack.settings, "query")).sort("id").collect()

    assert frame.columns == ["id", "name", "amount", "day", "at", "is_even", "half", "pair", "deep", "new"]
    assert frame.rows() == expected
    noon = datetime(2026, 1, 1, 12)  # noqa: DTZ001  # the column has no zone
    assert frame.row(3)[:7] == (3, "row 3", Decimal("0.75"), date(2026, 1, 4), noon, False, None)
    assert frame.row(3)[7:] == ([3, 4], {"a": 3, "b": {"c": "x"}}, None)
    assert frame.row(10)[:2] == (10, "late")


async def location_of(around: Surroundings, table: str) -> str:
    location = await around.tables.location(Qualified.parse(table))
    assert location is not None
    return location


@pytest.mark.parametrize(
    ("column", "refusal"),
    [
        ("timestamp_ns", "has Iceberg's format version 3, as another engine made it: it can be read, but"),
        ("variant", "is as only another engine makes them, and cannot be written: "),
    ],
)
async def test_a_table_of_the_third_version_is_read_and_never_written(
    stack: Stack, lake: Lakehouse, objects: ObjectStore, column: str, refusal: str
) -> None:
    async with surroundings(stack.settings) as around, serve(stack.settings):
        made = await around.request("select 1::bigint as id")
        assert (await around.finished(made)).error is None
        await upgraded(lake, objects, Qualified.parse(made.pipeline), new_column=column)

        reading = await around.request(f"select id from {{{{ ref('{made.pipeline}') }}}}")
        writing = await around.request("select 2::bigint as id", pipeline=made.pipeline, pipeline_id=made.pipeline_id)

        assert (await around.finished(reading)).error is None
        refused = await around.finished(writing)
        assert refused.error_kind is ErrorKind.SCHEMA
        assert refusal in (refused.error or "")
        assert await around.rows(made.pipeline) == [(1, None)]
        assert await around.rows(reading.pipeline) == [(1,)]
