"""The first rows that a query finds, as JSON keeps them: short enough to travel with what else there is to tell."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pyarrow as pa

SAMPLE_ROWS: Final = 20
LONGEST_TEXT: Final = 1000
"""Characters of a value that a sample shows."""
_SAMPLE_BYTES: Final = 20_000
"""Of the rows of one test in all, and of the first of them: reports have many tests, and tables many columns."""
_EXACT: Final = 2**53
_CUT: Final = "…"
_INFINITIES: Final = {
    2**63 - 1: "infinity",
    -(2**63 - 1): "-infinity",
    2**31 - 1: "infinity",
    -(2**31 - 1): "-infinity",
}
"""How DuckDB says infinity in Arrow, which has none: in timestamps and in dates."""


def sample_of(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what is too long of them; where something was left out, it says how much."""
    room = _Room(_SAMPLE_BYTES)
    sample: list[dict[str, Any]] = []
    for row in rows:
        if not room.is_left:
            break
        sample.append(room.fitted(json_safe(row)))
    return sample


@dataclass
class _Room:
    """So many bytes of JSON, and whatever is taken off them."""

    left: int

    @property
    def is_left(self) -> bool:
        """Whether anything more may be shown."""
        return self.left > 0

    def fitted(self, value: Any) -> Any:
        """The value, or as much of it as there is room for: its first parts, and how many more there were."""
        # With what separates it from the next one.
        self.left -= 2
        match value:
            case dict():
                return self._fitted_dict(value)
            case list():
                return self._fitted_list(value)
            case _:
                self.left -= len(json.dumps(value))
                return value

    def _fitted_dict(self, value: dict[str, Any]) -> dict[str, Any]:
        self.left -= 2
        fitted: dict[str, Any] = {}
        for key, item in value.items():
            if not self.is_left:
                return {**fitted, _CUT: f"{len(value) - len(fitted)} more"}
            self.left -= len(json.dumps(key)) + 2
            fitted[key] = self.fitted(item)
        return fitted

    def _fitted_list(self, value: list[Any]) -> list[Any]:
        self.left -= 2
        fitted: list[Any] = []
        for item in value:
            if not self.is_left:
                return [*fitted, f"{_CUT} {len(value) - len(fitted)} more"]
            fitted.append(self.fitted(item))
        return fitted


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch in Python's values, and as text those that Python has none for."""
    columns = [_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [_value(one) for one in column]


def _value(one: pa.Scalar) -> Any:
    """A value of a column of which not all have one in Python: infinity, and what is before year 1 or beyond 9999."""
    match one:
        case pa.StructScalar():
            return {name: _value(item) for name, item in one.items()}
        case pa.MapScalar():
            return [(_value(item["key"]), _value(item["value"])) for item in one.values or []]
        case pa.ListScalar() | pa.FixedSizeListScalar():
            return None if one.values is None else [_value(item) for item in one.values]
    try:
        return one.as_py()
    except (OverflowError, ValueError):
        return _INFINITIES.get(one.value) or str(one.cast(pa.string()))


def json_safe(value: Any) -> Any:
    """A value as JSON keeps it without loss: numbers that it would round become text; long texts are cut."""
    match value:
        case None | bool():
            return value
        case int():
            return value if -_EXACT <= value <= _EXACT else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            # PostgreSQL keeps no NUL, neither in text nor in JSON.
            return _cut(value.replace("\0", "�"))
        case Decimal() | UUID():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return _cut(value[:LONGEST_TEXT].hex())
        case dict():
            return {json_safe(str(key)): json_safe(item) for key, item in value.items()}
        case list() | tuple():
            return [json_safe(item) for item in value]
        case _:
            return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + _CUT
