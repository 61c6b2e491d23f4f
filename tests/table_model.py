"""What a table holds after any sequence of runs, as `pipelines.md` says it, in plain Python and nothing of ours."""

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The columns and rows that a query gives, and what the config says."""

    strategy: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    key: tuple[str, ...]
    watermark: str | None = None
    close_missing: bool = False


@dataclass
class TableModel:
    """A table: its columns and its rows, each with all of them."""

    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def apply(self, run: Run, now: datetime) -> int:
        """Do a run; how many rows it inserted or replaced."""
        own = ("valid_from", "valid_to", "is_current") if run.strategy == "scd2" else ()
        had_history = "is_current" in self.columns
        for name in (*run.columns, *own):
            if name not in self.columns:
                self.columns.append(name)
        self.rows = [{name: row.get(name) for name in self.columns} for row in self.rows]
        empty = dict.fromkeys(self.columns)
        new: list[Row] = [empty | dict(zip(run.columns, values, strict=True)) for values in run.rows]
        match run.strategy:
            case "full_refresh":
                self.rows = new
            case "append_only":
                self.rows += new
            case "incremental":
                new = last_of_each(new, run)
                self._replace(new, run.key)
            case "delete_insert":
                self._replace(new, run.key)
            case "snapshot":
                self._replace(new, run.key[:1])
            case "scd2":
                if not had_history:
                    self.rows = [row | {"is_current": True} for row in self.rows]
                return self._keep_history(last_of_each(new, run), run, now)
        return len(new)

    def _replace(self, new: list[Row], key: tuple[str, ...]) -> None:
        keys = {key_of(row, key) for row in new}
        self.rows = [row for row in self.rows if key_of(row, key) not in keys] + new

    def _keep_history(self, new: list[Row], run: Run, now: datetime) -> int:
        written = 0
        by_key = {key_of(row, run.key): row for row in new}
        own = {"valid_from", "valid_to", "is_current"}
        unchanged = set()
        changed = set()
        for row in self.rows:
            found = by_key.get(key_of(row, run.key))
            if row["valid_to"] is None and found is not None:
                is_same = all(same(row[name], found[name]) for name in self.columns if name not in own)
                (unchanged if is_same else changed).add(key_of(row, run.key))
        for place, row in enumerate(self.rows):
            key = key_of(row, run.key)
            if row["valid_to"] is None and (key in changed or (run.close_missing and key not in by_key)):
                self.rows[place] = row | {"valid_to": now, "is_current": False}
                written += 1
        for key, row in by_key.items():
            if key in changed or key not in unchanged:
                self.rows.append(row | {"valid_from": now, "valid_to": None, "is_current": True})
                written += 1
        return written

    def counted(self) -> Counter[tuple[Any, ...]]:
        """The rows, each as often as it is there."""
        return counted([tuple(row[name] for name in self.columns) for row in self.rows])


def counted(rows: list[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(plain(value) for value in row) for row in rows)


def last_of_each(rows: list[Row], run: Run) -> list[Row]:
    def rank(place: int) -> tuple[Any, ...]:
        mark = rows[place][run.watermark] if run.watermark is not None else None
        return (mark is not None, mark or 0, place)

    last: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(rows):
        key = key_of(row, run.key)
        if key not in last or rank(place) > rank(last[key]):
            last[key] = place
    return [rows[place] for place in last.values()]


def key_of(row: Row, key: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(plain(row[name]) for name in key)


def same(one: Any, other: Any) -> bool:
    return bool(plain(one) == plain(other))


def plain(value: Any) -> Any:
    """A value that is equal to another where SQL says that the one is not distinct from the other."""
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case dict():
            # A field that was added to a struct later is null in those that were there before.
            return frozenset((name, plain(item)) for name, item in value.items() if item is not None)
        case list():
            return tuple(plain(item) for item in value)
        case bool():
            return str(value)
        case _:
            return value
