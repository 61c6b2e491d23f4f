"""After any sequence of runs a table is what a model in plain Python says: all strategies, types, partitions, columns.

`pytest --examples 500` hunts longer.
"""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from infra.stacks.stack import Stack
from services.runner.config import PartitionField
from tests.table_model import Run, TableModel, counted
from tests.writing import NewTable, WrittenTable, written_tables


@dataclass(frozen=True)
class Kind:
    """A kind of column: the types that it may be widened through, and values of the first that all of them hold."""

    types: tuple[str, ...]
    values: st.SearchStrategy[Any]
    transforms: tuple[str, ...] = ("identity", "void")


NUMBERS: Final = ("identity", "bucket[3]", "truncate[2]")
TIMES: Final = ("identity", "year", "month", "day", "hour", "bucket[2]")
NAIVE: Final = datetime(1969, 12, 31, 23)  # noqa: DTZ001  # columns without a zone
LETTERS: Final = st.text("ab'\"\x00ä🦆", max_size=3)

KINDS: Final = {
    "boolean": Kind(("BOOLEAN",), st.booleans()),
    "int": Kind(("INTEGER", "BIGINT"), st.integers(-2, 3) | st.sampled_from([2**31 - 1, -(2**31)]), NUMBERS),
    "float": Kind(("FLOAT", "DOUBLE"), st.sampled_from([0.0, -0.0, 1.5, -2.25, math.nan, math.inf]), ()),
    "decimal": Kind(("DECIMAL(5,2)", "DECIMAL(9,2)"), st.decimals(-2, 2, places=2), NUMBERS),
    "string": Kind(("VARCHAR",), LETTERS, NUMBERS),
    "binary": Kind(("BLOB",), st.binary(max_size=3), NUMBERS),
    "uuid": Kind(("UUID",), st.integers(0, 3).map(lambda n: UUID(int=n << 96)), ("identity", "bucket[3]")),
    "date": Kind(("DATE",), st.integers(0, 3).map(lambda n: date(1969, 12, 30) + timedelta(days=n)), TIMES[:4]),
    "time": Kind(("TIME",), st.sampled_from([time(0), time(12, 0, 0, 1), time(23, 59, 59, 999999)]), ("bucket[2]",)),
    "timestamp": Kind(("TIMESTAMP",), st.integers(0, 3).map(lambda n: NAIVE + n * timedelta(minutes=31)), TIMES),
    "timestamptz": Kind(
        ("TIMESTAMPTZ",),
        st.integers(0, 3).map(lambda n: NAIVE.replace(tzinfo=UTC) + n * timedelta(minutes=31)),
        TIMES,
    ),
    "list": Kind(("INTEGER[]", "BIGINT[]"), st.lists(st.none() | st.integers(0, 2), max_size=2), ()),
    "map": Kind(("MAP(VARCHAR, INTEGER)",), st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=1), ()),
    "struct": Kind(
        ('STRUCT("in" INTEGER)', 'STRUCT("in" BIGINT, "b c" VARCHAR)'),
        st.fixed_dictionaries({"in": st.none() | st.integers(0, 2)}),
        (),
    ),
}

KEY_KINDS: Final = [name for name in KINDS if name not in ("list", "map", "struct")]
NAMES: Final = ("select", "two words", "file", 'it\'s "it"', "Ünï", "order", "partition0", "rowid")


@dataclass(frozen=True)
class Planned:
    """A run, the types of its columns as SQL, and how the table is to be partitioned."""

    run: Run
    types: tuple[str, ...]
    partitions: tuple[PartitionField, ...]

    @property
    def sql(self) -> str:
        casts = [f"{value}::{kind} as {quoted(n)}" for n, kind, value in self._columns(places=True)]
        if not self.run.rows:
            nothing = [f"null::{kind} as {quoted(n)}" for n, kind, _ in self._columns(places=False)]
            return f"select {', '.join(nothing)} where false"
        rows = ", ".join(f"({', '.join(literal(value) for value in row)})" for row in self.run.rows)
        names = ", ".join(f"c{place}" for place in range(len(self.types)))
        return f"select {', '.join(casts)} from (values {rows}) v({names})"

    def _columns(self, *, places: bool) -> list[tuple[str, str, str]]:
        return [
            (name, kind, f"c{place}" if places else "null")
            for place, (name, kind) in enumerate(zip(self.run.columns, self.types, strict=True))
        ]


@st.composite
def histories(draw: st.DrawFn) -> list[Planned]:
    """Runs of one table; most by one strategy, now and then by another."""
    names = draw(st.permutations(NAMES))
    key = tuple(names[: draw(st.integers(1, 2))])
    others = names[len(key) : len(key) + draw(st.integers(1, 4))]
    kinds = {name: draw(st.sampled_from(KEY_KINDS)) for name in key}
    kinds |= {name: draw(st.sampled_from(sorted(KINDS))) for name in others}
    kinds["seen"] = "int"
    strategies = st.sampled_from(["full_refresh", "append_only", "incremental", "delete_insert", "scd2", "snapshot"])
    usual = draw(strategies)
    partitions = draw(partitionings(kinds, key))
    planned: list[Planned] = []
    for _ in range(draw(st.integers(2, 5))):
        strategy = draw(st.just(usual) | st.just(usual) | st.just(usual) | strategies)
        given = [name for name in others if draw(st.integers(0, 3))]
        if draw(st.integers(0, 4)) == 0:
            partitions = draw(partitionings(kinds, key))
        # What a table is partitioned by is what its query gives.
        given += [field.column for field in partitions if field.column not in (*key, *given, "seen")]
        columns = (*key, *dict.fromkeys(given), "seen")
        widths = [draw(st.sampled_from(KINDS[kinds[name]].types)) for name in columns]
        rows = draw(st.lists(st.tuples(*(values(kinds[name], nulls=True) for name in columns)), max_size=6))
        watermark = "seen" if draw(st.booleans()) else None
        run = Run(strategy, columns, tuple(rows), key, watermark, draw(st.booleans()))
        planned.append(Planned(run, tuple(widths), partitions))
    return planned


def values(kind: str, *, nulls: bool) -> st.SearchStrategy[Any]:
    return st.none() | KINDS[kind].values if nulls else KINDS[kind].values


def partitionings(kinds: dict[str, str], key: tuple[str, ...]) -> st.SearchStrategy[tuple[PartitionField, ...]]:
    fields = [PartitionField(name, transform) for name, kind in kinds.items() for transform in KINDS[kind].transforms]
    some = st.lists(st.sampled_from(fields), max_size=2, unique=True).map(tuple)
    of_key = [field for field in fields if field.column in key]
    usual = st.sampled_from(of_key).map(lambda field: (field,)) if of_key else st.just(())
    # Two of one fixed type are refused.
    return (some | usual | st.just(())).filter(lambda chosen: sum(is_fixed(field, kinds) for field in chosen) < 2)


def is_fixed(field: PartitionField, kinds: dict[str, str]) -> bool:
    return kinds[field.column] in ("uuid", "decimal") and not field.transform.startswith("bucket")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """A value as SQL that DuckDB casts to any type that holds it."""
    match value:
        case None:
            return "null"
        case bool() | int() | Decimal():
            return str(value)
        case float():
            return f"'{value}'::double"
        case str():
            return f"decode(unhex('{value.encode().hex()}'))"
        case bytes():
            return f"unhex('{value.hex()}')"
        case datetime():
            return f"'{value.isoformat()}'::{'timestamp' if value.tzinfo is None else 'timestamptz'}"
        case date() | time() | UUID():
            return f"'{value}'::{type(value).__name__}"
        case list():
            return f"[{', '.join(literal(item) for item in value)}]::bigint[]"
        case {"in": item}:
            return f"{{'in': {literal(item)}}}"
        case dict():
            keys, items = [literal(key) for key in value], [literal(item) for item in value.values()]
            return f"map([{', '.join(keys)}]::varchar[], [{', '.join(items)}]::integer[])"
        case _:
            raise AssertionError(value)


@pytest.fixture(scope="module")
async def new_table(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NewTable]:
    async with written_tables(stack.settings, tmp_path_factory.mktemp("spill")) as new_table:
        yield new_table


def test_a_table_is_what_the_model_says(new_table: NewTable, request: pytest.FixtureRequest) -> None:
    examples = int(request.config.getoption("--examples"))

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples <= 50,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(histories())
    def holds(history: list[Planned]) -> None:
        table, model = new_table(), TableModel()
        for planned in history:
            check(table, model, planned)
        everything = table.table.scan().to_arrow().select(model.columns).to_pylist(maps_as_pydicts="strict")
        assert counted([tuple(row.values()) for row in everything]) == model.counted(), "stock PyIceberg reads it so"

    holds()


def check(table: WrittenTable, model: TableModel, planned: Planned) -> None:
    run, now = planned.run, table.next_run
    note(f"{run.strategy} by {run.key}, {planned.partitions}: {planned.sql}")

    written = table.write(
        planned.sql,
        run.strategy,
        unique_key=run.key,
        partition_column=run.key[0],
        watermark_column=run.watermark,
        close_missing=run.close_missing,
        partition_by=planned.partitions,
    )

    rows = model.apply(run, now)
    types = dict(table.query("select column_name, column_type from (describe from t)"))
    columns = [
        f"{quoted(name)} at time zone 'UTC'" if types[name].endswith("ZONE") else quoted(name) for name in model.columns
    ]
    found = table.query(f"select {', '.join(columns)} from t")
    zones = {place for place, name in enumerate(model.columns) if types[name].endswith("ZONE")}
    aware = [
        tuple(value.replace(tzinfo=UTC) if place in zones and value else value for place, value in enumerate(row))
        for row in found
    ]
    assert counted(aware) == model.counted()
    assert list(types) == model.columns
    assert written.rows == rows
