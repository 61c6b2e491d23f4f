"""Results of queries: an Arrow IPC stream that arrives in pieces, and its rows as JSON and CSV."""

import base64
import csv
import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

TYPE_KEY: Final = b"rat:type"
"""The key of a field's metadata under which the query service puts its DuckDB type."""

_EXACT: Final = 2**53
"""Integers up to here are exact in any JSON reader."""
_CONTINUATION: Final = b"\xff\xff\xff\xff"


class ArrowPieces:
    """Puts an Arrow IPC stream together from pieces of any size, record batch by record batch."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.schema: pa.Schema | None = None

    def add(self, piece: bytes) -> Iterator[pa.RecordBatch]:
        """The record batches that this piece completes."""
        self._buffer += piece
        while (length := _message_length(self._buffer)) is not None:
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            if self.schema is None:
                self.schema = pa.ipc.read_schema(pa.py_buffer(message))
            elif length > 8:
                yield pa.ipc.read_record_batch(pa.py_buffer(message), self.schema)


def _message_length(buffer: bytearray) -> int | None:
    """How long the first message is, if it is there as a whole (Arrow columnar format, "Encapsulated message format").

    A message is a continuation mark, the length of its metadata, the metadata, and a body whose length the
    metadata says: field 3 of the table `Message` in `Message.fbs`.
    """
    if len(buffer) < 8:
        return None
    if buffer[:4] != _CONTINUATION:
        raise ValueError("this is no Arrow IPC stream")
    (metadata,) = struct.unpack_from("<i", buffer, 4)
    if metadata == 0:
        return 8
    if len(buffer) < 8 + metadata:
        return None
    table = 8 + struct.unpack_from("<I", buffer, 8)[0]
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size_of_vtable = struct.unpack_from("<H", buffer, vtable)[0]
    slot = 4 + 2 * 3
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot < size_of_vtable else 0
    body = struct.unpack_from("<q", buffer, table + offset)[0] if offset else 0
    length: int = 8 + metadata + body
    return length if len(buffer) >= length else None


def columns_of(schema: pa.Schema) -> list[dict[str, str]]:
    """Names and DuckDB types of the columns."""
    return [{"name": field.name, "type": _type(field)} for field in schema]


def _type(field: pa.Field) -> str:
    text: bytes = (field.metadata or {}).get(TYPE_KEY, str(field.type).encode())
    return text.decode()


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows as JSON knows them."""
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in _plain_rows(batch)]


def csv_of(batch: pa.RecordBatch) -> bytes:
    """The rows as CSV (RFC 4180) without a header: nothing for NULL, JSON for what is nested."""
    return csv_lines(_plain_rows(batch))


def csv_lines(rows: Any) -> bytes:
    """Rows of plain values as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return str(value).lower()
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value


def _plain_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    columns = [_plain_column(batch.column(index), batch.schema.field(index)) for index in range(batch.num_columns)]
    return zip(*columns, strict=True)


def _plain_column(column: pa.Array, field: pa.Field) -> list[Any]:
    kind = column.type
    if _is_plain(column):
        values: list[Any] = column.to_pylist()
        return values
    if _type(field) == "HUGEINT":
        return [None if value is None else plain(int(value)) for value in column.to_pylist()]
    if _type(field) == "UHUGEINT":
        # Arrow has no unsigned ones of 128 bits: the same bits mean another number.
        return [None if value is None else plain(int(value) % 2**128) for value in column.to_pylist()]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind) and not pa.types.is_duration(kind):
        # Python has no dates before the year 1, after 9999, or at infinity; Arrow has.
        return [None if text is None else _iso(text) for text in _in_microseconds(column).cast(pa.string()).to_pylist()]
    try:
        return [plain(value) for value in column.to_pylist()]
    except (OverflowError, ValueError, pa.ArrowInvalid):
        return [plain_scalar(scalar) for scalar in column]


def _is_plain(column: pa.Array) -> bool:
    """Whether JSON knows all of a column's values as they are: seen for the whole column at once."""
    kind = column.type
    if pa.types.is_integer(kind):
        if kind.bit_width < 64:
            return True
        least, most = pc.min_max(column).values()
        return not most.is_valid or (least.as_py() >= -_EXACT and most.as_py() <= _EXACT)
    if pa.types.is_floating(kind):
        return pc.all(pc.is_finite(column)).as_py() is not False
    is_plain: bool = pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    return is_plain


def _in_microseconds(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type) and column.type.unit in ("s", "ms"):
        try:
            return column.cast(pa.timestamp("us", column.type.tz))
        except pa.ArrowInvalid:
            return column
    return column


def _iso(text: str) -> str:
    """ISO 8601 from what Arrow writes; DuckDB's infinities, and its time 24:00:00, are out of Arrow's range."""
    if not text.startswith("<"):
        return text.replace(" ", "T", 1)
    number = text.rpartition(" ")[2].rstrip(">")
    if number.rstrip("0") == "864":
        return "24:00:00"
    return "-infinity" if number.startswith("-") else "infinity"


def plain_scalar(scalar: pa.Scalar) -> Any:
    """A value that Python may not be able to hold, as JSON knows it."""
    if not scalar.is_valid:
        return None
    match scalar:
        case pa.StructScalar():
            return {name: plain_scalar(item) for name, item in scalar.items()}
        case pa.ListScalar():
            return [plain_scalar(item) for item in scalar.values]
    try:
        return plain(scalar.as_py())
    except (OverflowError, ValueError):
        return _iso(scalar.cast(pa.string()).as_py())


def plain(value: Any) -> Any:
    """A Python value of Arrow as JSON knows it.

    Strings are: integers beyond 2^53, decimals, what is no number (`NaN`, `Infinity`), times (ISO 8601), blobs
    (base64).
    """
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value)
    return value


def _integer(value: int) -> int | str:
    return value if isinstance(value, bool) or -_EXACT <= value <= _EXACT else str(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _moment(value: datetime) -> str:
    text = value.replace(tzinfo=None) if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return text.isoformat(timespec="microseconds") + ("" if value.tzinfo is None else "Z")


def _interval(value: Any) -> str:
    """ISO 8601: `P1M2DT3.500000S`."""
    months, days, nanoseconds = value
    seconds = Decimal(nanoseconds) / 1_000_000_000
    return f"P{months}M{days}DT{seconds.normalize():f}S"


def _duration(value: timedelta) -> str:
    return _interval((0, value.days, (value - timedelta(days=value.days)) // timedelta(microseconds=1) * 1000))


def _sequence(value: Any) -> Any:
    """A list; or a map, which comes as pairs."""
    if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        return {str(plain(key)): plain(item) for key, item in value}
    return [plain(item) for item in value]


_CONVERSIONS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    ((str, type(None)), lambda value: value),
    (int, _integer),
    (float, _float),
    (Decimal, lambda value: f"{value:f}"),
    (datetime, _moment),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, _duration),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (pa.MonthDayNano, _interval),
    (dict, lambda value: {key: plain(item) for key, item in value.items()}),
    ((list, tuple), _sequence),
)
