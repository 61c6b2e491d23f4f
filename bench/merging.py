"""`python -m bench.merging [ROWS] [STACK] [--write]`: what merge strategies take, beside MERGE INTO and a rewrite.

Keys are clustered (one range of a table in the order of its keys) or scattered (all over it), and no try has those of
another, whose rows lie together from then on. What is measured is the write step of a run: the query, the files and the
commit, on a branch.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from bench.figures import show, table
from infra.stacks.table import STACKS
from tests.writing import NewTable, WrittenTable, written_tables

ROWS = 10_000_000
SHARES = (10_000, 1_000, 100, 10)
"""One key of so many is new: 1 k, 10 k, 100 k and 1 M of ten million."""
TIMES = 3
STRATEGIES = ("incremental", "delete_insert", "scd2")


@dataclass(frozen=True)
class Case:
    """Which keys get new values."""

    name: str
    key: str
    """The key of the i-th row of a try, as SQL with its number."""
    count: int

    def sql(self, number: int) -> str:
        """The rows of a try: no other number has their values, nor their keys."""
        return (
            f"select {self.key.format(number=number)} as id, 'changed {number} ' || (i % 1000) as customer,"
            f" (i % 10000) / 4 as amount, date '2027-01-01' as day, true as is_even from range({self.count}) t(i)"
        )


def base_sql(rows: int) -> str:
    """The table before: as that of the data path, in the order of its keys."""
    return (
        "select i as id, 'customer ' || (i % 1000) as customer, (i % 10000) / 4 as amount,"
        f" date '2026-01-01' + (i % 365)::int as day, i % 2 = 0 as is_even from range({rows}) t(i)"
    )


def cases(rows: int) -> Iterator[Case]:
    """Changed rows by how many there are and where; scattered ones last, as they end the order of the table."""
    counts = {share: max(rows // share, 1) for share in SHARES}
    for count in counts.values():
        yield Case(f"{count:,} clustered", f"i + {max(rows - TIMES * count, 0) // 2} + {{number}} * {count}", count)
    for share, count in counts.items():
        yield Case(f"{count:,} scattered", f"i * {share} + {{number}}", count)


def measure(new_table: NewTable, rows: int) -> Iterator[list[str]]:
    """A row for each case: seconds of each strategy, of MERGE INTO, of the rewrite, and how the upsert compares."""
    tables = {strategy: _base(new_table(), rows, strategy) for strategy in STRATEGIES}
    first = tables[STRATEGIES[0]]
    first.connection.execute(f"create or replace table native as {base_sql(rows)}")
    for case in cases(rows):
        seconds = [_best(partial(_write, table, strategy), case) for strategy, table in tables.items()]
        merge, whole = _best(partial(_merge_into, first), case), _best(partial(_rewrite, first), case)
        yield [case.name, *(f"{one:.2f}" for one in (*seconds, merge, whole)), f"{whole / seconds[0]:.1f}"]


def _base(table: WrittenTable, rows: int, strategy: str) -> WrittenTable:
    _write(table, strategy, base_sql(rows))
    return table


def _best(work: Callable[[str], None], case: Case) -> float:
    """The best of some times, in seconds."""
    taken = []
    for number in range(TIMES):
        begun = time.perf_counter()
        work(case.sql(number))
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _write(table: WrittenTable, strategy: str, sql: str) -> None:
    table.write(sql, strategy, unique_key=("id",))


def _merge_into(table: WrittenTable, sql: str) -> None:
    """The same to a table of DuckDB's own."""
    table.connection.execute(
        f"merge into native using ({sql}) new on native.id = new.id"
        " when matched then update when not matched then insert"
    )


def _rewrite(table: WrittenTable, sql: str) -> None:
    """The whole table anew, as COPY writes it."""
    place = f"{table.table.location()}/rewritten/{uuid4()}.parquet"
    table.connection.execute(
        f"copy (select * from {table.relation()} t anti join ({sql}) n using (id) union all {sql})"
        f" to '{place}' (format parquet, compression zstd)"
    )


async def main() -> None:
    """Measure and print."""
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    stacks = [argument for argument in sys.argv[1:] if argument in STACKS] or ["embedded"]
    rows = int(numbers[0]) if numbers else ROWS
    for stack in stacks:
        with TemporaryDirectory(prefix="rat-bench-") as folder:
            async with (
                STACKS[stack](Path(folder) / "stack", gateway_port=0) as servers,
                written_tables(servers.settings, Path(folder) / "spill") as new_table,
            ):
                header = [
                    "keys",
                    "incremental",
                    "delete_insert",
                    "scd2",
                    "MERGE INTO",
                    "rewrite",
                    "rewrite / incremental",
                ]
                found = []
                for row in measure(new_table, rows):
                    print(" | ".join(row), flush=True)
                    found.append(row)
                figures = f"### Merge strategies on {rows:,} rows, {stack}: seconds\n\n{table(header, found)}"
                show(f"python -m bench.merging {rows} {stack}", figures)


if __name__ == "__main__":
    asyncio.run(main())
