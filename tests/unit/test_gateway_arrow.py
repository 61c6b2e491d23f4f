"""Results as Arrow pieces, as JSON and as CSV."""

import io
import math
from datetime import timedelta

import duckdb
import msgspec
import pyarrow as pa
import pytest

from services.gateway.arrow import TYPE_KEY, ArrowPieces, columns_of, csv_of, plain, rows_of


def stream(sql: str) -> bytes:
    """What the query service sends for a query."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        result = connection.execute(sql)
        types = [str(column[1]) for column in result.description]
        table = result.to_arrow_table()
    fields = [
        pa.field(field.name, field.type, metadata={TYPE_KEY: kind.encode()})
        for field, kind in zip(table.schema, types, strict=True)
    ]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema(fields)) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields)))
    return sink.getvalue()


def one(expression: str) -> object:
    """The JSON of a value."""
    pieces = ArrowPieces()
    [batch] = pieces.add(stream(f"select {expression} as value"))
    return rows_of(batch)[0]["value"]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_stream_is_put_together_from_pieces_of_any_size(size):
    content = stream("select i, i || 'é' as t from range(5) t(i)")
    pieces = ArrowPieces()

    batches = [batch for start in range(0, len(content), size) for batch in pieces.add(content[start : start + size])]

    assert [row for batch in batches for row in rows_of(batch)] == [{"i": i, "t": f"{i}é"} for i in range(5)]
    assert columns_of(pieces.schema) == [{"name": "i", "type": "BIGINT"}, {"name": "t", "type": "VARCHAR"}]


def test_what_is_no_stream_is_refused():
    with pytest.raises(ValueError, match="no Arrow"):
        list(ArrowPieces().add(b"<html></html>"))


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("42", 42),
        ("9007199254740992", 9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("-9007199254740993", "-9007199254740993"),
        ("sum(1::bigint)", 1),
        ("170141183460469231731687303715884105727::hugeint", "170141183460469231731687303715884105727"),
        ("340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211455"),
        ("1.10::decimal(10,2)", "1.10"),
        ("0.5::double", 0.5),
        ("'nan'::double", "NaN"),
        ("'inf'::float", "Infinity"),
        ("'-inf'::float", "-Infinity"),
        ("true", True),
        ("null", None),
        ("'x'", "x"),
        ("'\\x00\\xff'::blob", "AP8="),
        ("date '2026-01-02'", "2026-01-02"),
        ("date 'infinity'", "infinity"),
        ("date '-infinity'", "-infinity"),
        ("date '12026-01-02'", "12026-01-02"),
        ("time '12:34:56'", "12:34:56.000000"),
        ("time '24:00:00'", "24:00:00"),
        ("timestamp '2026-01-02 03:04:05'", "2026-01-02T03:04:05.000000"),
        ("timestamp_s '2026-01-02 03:04:05'", "2026-01-02T03:04:05.000000"),
        ("timestamp_ns '2026-01-02 03:04:05.123456789'", "2026-01-02T03:04:05.123456789"),
        ("timestamptz '2026-01-02 03:04:05+02'", "2026-01-02T01:04:05.000000Z"),
        ("timestamp 'infinity'", "infinity"),
        ("interval '1 month 2 days 3.5 seconds'", "P1M2DT3.5S"),
        ("uuid '00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
        ("[1, null, 9007199254740993]", [1, None, "9007199254740993"]),
        ("{'a': 1.5::decimal(3,1), 'b': [date '2026-01-02']}", {"a": "1.5", "b": ["2026-01-02"]}),
        ("[date 'infinity', date '2026-01-02', null]", ["infinity", "2026-01-02", None]),
        ("map {'k': timestamp '2026-01-02 03:04:05'}", {"k": "2026-01-02T03:04:05.000000"}),
        ("map {1: 'x', 2: null}", {"1": "x", "2": None}),
        ("[]::int[]", []),
    ],
)
def test_every_value_becomes_one_that_json_knows(sql, value):
    found = one(sql)

    assert found == value
    assert type(found) is type(value)
    assert msgspec.json.decode(msgspec.json.encode(found)) == value


def test_nothing_that_duckdb_has_breaks_the_encoding():
    pieces = ArrowPieces()
    sql = "select * exclude (bignum, small_enum, medium_enum, large_enum) from test_all_types()"

    for batch in pieces.add(stream(sql)):
        assert msgspec.json.encode(rows_of(batch))
        assert csv_of(batch)


def test_csv_quotes_what_needs_it_and_leaves_nulls_empty():
    pieces = ArrowPieces()
    sql = """select 1 as a, 'x,"y"' as b, null as c, true as d, [1, 2] as e, {'k': 'é'} as f"""

    [batch] = pieces.add(stream(sql))

    assert csv_of(batch).decode() == '1,"x,""y""",,true,"[1, 2]","{""k"": ""é""}"\r\n'


def test_a_duration_and_a_large_integer_inside_are_told_as_text():
    assert plain(timedelta(days=1, seconds=1.5)) == "P0M1DT1.5S"
    assert plain({"n": 2**60, "x": math.inf}) == {"n": str(2**60), "x": "Infinity"}
