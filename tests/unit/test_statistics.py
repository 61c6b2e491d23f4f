"""What is kept of a file that DuckDB wrote is what PyIceberg reads from its footer."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.types import DateType, StringType

from services.runner.engine.schema import columns_of, field_ids, schema_of
from services.runner.engine.statement import identifier
from services.runner.engine.statistics import ParquetFile, bounds, data_file

EVERY_TYPE = """
select
  x::int - 9000 as a, x * 10000000000 as b, (x / 7)::float as c, (x / 7)::double as d, (x * 1.5)::decimal(9, 2) as e,
  (x * 1.5 - 9)::decimal(18, 3) as f, (x * 1.5)::decimal(38, 5) as g, 'näme' || x as h, repeat('zä', x::int % 300) as i,
  md5('' || x)::uuid as j, ('\\xFF\\xFE' || x)::blob as k, date '1950-01-01' + x::int as l,
  time '00:00:00.000001' + interval (x) seconds as m, timestamp '1960-01-01 00:00:00.123456' + interval (x) hours as n,
  timestamptz '2020-01-01 00:00:00.1+00' + interval (x) minutes as o, x % 2 = 0 as p, null::int as q,
  case when x % 3 = 0 then x end as r, {'in': x, 'do.t': 'a' || x} as s, [x, x] as t, map {'k': x} as u,
  case when x = 7 then 'nan'::double else x end as v, '' as w, chr(1114111) || x as "we.ird ""x"
from range(ROWS) t(x) order by hash(x)
"""


def written(folder: Path, query: str) -> tuple[ParquetFile, Schema]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        schema = assign_fresh_schema_ids(schema_of(columns_of(connection, query)))
        ids = ", ".join(f"{identifier(field.name)}: {field_ids(field)}" for field in schema.fields)
        options = f"format parquet, field_ids {{{ids}}}, return_stats, row_group_size 4096"
        [row] = connection.execute(f"copy ({query}) to '{folder / 'x.parquet'}' ({options})").fetchall()
    location, rows, size, _, statistics, *_ = row
    return ParquetFile(location, rows, size, statistics), schema


def from_footer(file: ParquetFile, schema: Schema) -> dict[str, Any]:
    return data_file_statistics_from_parquet_metadata(
        parquet_metadata=pq.read_metadata(file.location),
        stats_columns=compute_statistics_plan(schema, {}),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    ).to_serialized_dict()


@pytest.mark.parametrize("rows", [1, 20_000])
def test_statistics_are_those_of_the_footer(tmp_path: Path, rows: int) -> None:
    file, schema = written(tmp_path, EVERY_TYPE.replace("ROWS", str(rows)))

    kept, footer = data_file(file, schema), from_footer(file, schema)

    assert kept.record_count == footer["record_count"] == rows
    for name in ("column_sizes", "value_counts", "null_value_counts"):
        assert getattr(kept, name) == footer[name], name
    for name in ("lower_bounds", "upper_bounds"):
        mine, theirs = getattr(kept, name), footer[name]
        in_both = mine.keys() & theirs.keys()
        assert {key: mine[key] for key in in_both} == {key: theirs[key] for key in in_both}, name
        missing = {str(schema.find_column_name(key)) for key in theirs.keys() - in_both}
        # Of what is inside lists and maps, and of numbers that may be NaN, no bounds are kept.
        assert missing <= {"t.element", "u.key", "u.value", "c", "d", "v"}
        # PyIceberg has none of columns with odd names.
        assert {schema.find_column_name(key) for key in mine.keys() - in_both} <= {"s.in", "s.do.t", 'we.ird "x'}


def test_a_bound_that_cannot_be_written_is_left_out() -> None:
    assert bounds(DateType(), {"min": "0044-03-15 (BC)", "max": "2020-01-01"}) == (None, None)
    assert bounds(DateType(), {"min": "2020-01-01", "max": "infinity"}) == (None, None)
    assert bounds(StringType(), {"null_count": "3"}) == (None, None)
    low, high = bounds(StringType(), {"min": "a" * 20, "max": chr(0x10FFFF) * 20})
    assert (low, high) == (b"a" * 16, None)
