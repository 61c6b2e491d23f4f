"""What tests of tables share: the lakehouse as runners have it, catalogs of its branches, and new names."""

from collections.abc import AsyncIterator, Callable, Iterator

import duckdb
import pytest

from contracts.names import Qualified
from infra.stacks.stack import Stack
from shared.duckdb_engine import connect
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.files import TableFiles, s3_properties
from shared.lakehouse.port import Lakehouse
from shared.object_store import ObjectStore, object_store
from tests.tables import new_branch, new_table


@pytest.fixture(scope="module")
async def lake(stack: Stack) -> AsyncIterator[Lakehouse]:
    """The lakehouse, where tables can be created in `test.bronze`."""
    async with lakehouse(stack.settings, "runner") as lake:
        await lake.ensure_namespace("test", "bronze")
        yield lake


@pytest.fixture(scope="module")
def on(stack: Stack, lake: Lakehouse) -> Iterator[Callable[[str], BranchCatalog]]:
    """The catalog of a branch."""
    with catalogs(stack.settings, "runner") as on:
        yield on


@pytest.fixture(scope="module")
def engine(stack: Stack) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as the service of queries has it."""
    with connect(stack.settings, "query") as connection:
        yield connection


@pytest.fixture(scope="module")
async def objects(stack: Stack) -> AsyncIterator[ObjectStore]:
    """The object store as runners have it."""
    async with object_store(stack.settings, "runner") as objects:
        yield objects


@pytest.fixture
def files(stack: Stack) -> Callable[[], TableFiles]:
    """Files as a process sees them that has read none so far."""
    return lambda: TableFiles(s3_properties(stack.settings, "runner"))


@pytest.fixture
async def branch(lake: Lakehouse) -> str:
    """A branch that nobody else has."""
    return await new_branch(lake)


@pytest.fixture
def table() -> Qualified:
    """The name of a table that there is not."""
    return new_table()
