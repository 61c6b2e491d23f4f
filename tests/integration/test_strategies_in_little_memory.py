"""Merge strategies hold no more in memory than a run may, whatever the size of the table and of what is new."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.stacks.stack import Stack
from services.runner.engine.session import limit_memory
from tests.relaying import relay
from tests.writing import NewTable, WrittenTable, written_tables

pytestmark = pytest.mark.timeout(600)

LIMIT = 64_000_000
"""The least that an author may ask for."""
ROWS = 160_000
COLUMNS = 40
"""Of 8 bytes each: no two copies of the table are in memory at once, nor one beside what is new."""


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spill")


@pytest.fixture(scope="module")
async def new_table(stack: Stack, spill: Path) -> AsyncIterator[NewTable]:
    async with written_tables(stack.settings, spill) as new_table:
        yield new_table


@pytest.fixture
def table(new_table: NewTable) -> Iterator[WrittenTable]:
    table = new_table()
    limit_memory(table.connection, LIMIT)
    yield table
    table.connection.execute("reset memory_limit")


def rows(key: str, count: int, number: int) -> str:
    """Rows that do not compress, whose values no other number has; `part` is one of four."""
    values = ", ".join(f"hash(i + {number * ROWS + place * 7}) >> 1 as v{place}" for place in range(COLUMNS))
    return f"select {key} as id, id % 4 as part, {number} as number, {values} from range({count}) t(i)"


def test_what_replaces_rows_needs_no_more_than_the_least_limit(table: WrittenTable, spill: Path) -> None:
    table.write(rows("i", ROWS, 0))
    half = ROWS // 2

    def numbers() -> list[tuple[object, ...]]:
        return table.query("select number, count(*) from t group by all order by all")

    # Each key twice, of which the last counts.
    table.write(rows(f"i % {half // 2} * 4", half, 1), "incremental", unique_key=("id",))
    assert numbers() == [(0, ROWS - half // 2), (1, half // 2)]

    table.write(rows("i * 2", half, 2), "delete_insert", unique_key=("id",))
    assert numbers() == [(0, half), (2, half)]

    table.write(rows("i * 4 + 1", half // 2, 3), "snapshot", partition_column="part")
    assert numbers() == [(0, half // 2), (2, half), (3, half // 2)]
    assert list(spill.rglob("*.tmp")) == [], "what was spilled is gone"


def test_scd2_needs_no_more_than_the_least_limit(table: WrittenTable, spill: Path) -> None:
    table.write(rows("i", ROWS, 0), "scd2", unique_key=("id",))

    table.write(rows("i * 2", ROWS // 2, 1), "scd2", unique_key=("id",))

    assert table.query("select number, is_current, count(*) from t group by all order by all") == [
        (0, False, ROWS // 2),
        (0, True, ROWS // 2),
        (1, True, ROWS // 2),
    ]
    assert list(spill.rglob("*.tmp")) == [], "what was spilled is gone"


async def test_a_slow_store_leaves_a_run_the_memory_that_it_needs(stack: Stack, spill: Path) -> None:
    store = urlsplit(stack.settings.s3_endpoint)
    assert store.hostname is not None
    assert store.port is not None
    async with relay(store.hostname, store.port, pause_seconds=0.01) as (_, port):
        slow = stack.settings.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{port}"})
        async with written_tables(slow, spill) as new_table:
            table = new_table()
            limit_memory(table.connection, LIMIT)

            written = await asyncio.to_thread(table.write, rows("i", ROWS, 0), "scd2", unique_key=("id",))

    assert written.rows == ROWS


def test_long_texts_are_replaced_in_little_memory(table: WrittenTable) -> None:
    text = "select i as id, repeat(hash(i + {})::varchar, 60) as text from range({}) t(i)"
    table.write(text.format(0, 1000), "incremental", unique_key=("id",))

    written = table.write(text.format(1, 150_000), "incremental", unique_key=("id",))

    assert written.rows == 150_000
    assert table.query("select count(*), count(distinct id) from t") == [(150_000, 150_000)]
