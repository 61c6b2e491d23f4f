"""Commits to one table, ours and PyIceberg's by turns, over the same servers; the data files are only named."""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from uuid import uuid4

from pyiceberg.expressions import AlwaysTrue
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType

from bench.figures import milliseconds
from contracts.names import Qualified
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.commit import change
from shared.lakehouse.connect import lakehouse
from shared.settings import Settings

TIMES = 40
_SCHEMA = Schema(NestedField(1, "id", LongType()), NestedField(2, "name", StringType()))


async def commits(settings: Settings) -> list[list[str]]:
    """Medians of an append and of a replacement of all rows, and their ratios, each a row."""
    branch = f"run-{uuid4()}-1"
    async with lakehouse(settings, "runner") as port:
        await port.ensure_namespace("default", "bronze")
        await port.create_branch(branch)
    return await asyncio.to_thread(_measured, settings, branch)


def _measured(settings: Settings, branch: str) -> list[list[str]]:
    rows = []
    with catalogs(settings, "runner") as on:
        catalog = on(branch)
        for label, ours, theirs in (
            ("append", _append, _append_by_pyiceberg),
            ("replacement of all rows", _replace, _replace_by_pyiceberg),
        ):
            mine, stock = _made(catalog), _made(catalog)
            timed = [(_timed(catalog, mine, ours), _timed(catalog, stock, theirs)) for _ in range(TIMES)]
            own, other = [one for one, _ in timed], [one for _, one in timed]
            rows.append([label, milliseconds(own), milliseconds(other), f"{median(own) / median(other):.2f}"])
    return rows


def _made(catalog: BranchCatalog) -> Qualified:
    name = Qualified("default", "bronze", f"bench_{uuid4().hex[:10]}")
    catalog.create_table(name, _SCHEMA)
    return name


def _timed(catalog: BranchCatalog, name: Qualified, commit: Callable[[BranchCatalog, Table], None]) -> float:
    begun = time.perf_counter()
    commit(catalog, catalog.load_table(name))
    return time.perf_counter() - begun


def _append(catalog: BranchCatalog, table: Table) -> None:
    name = Qualified(*table.name())
    change(catalog, name, table, table.schema(), [], snapshot_properties={}).finish([_file(table)])


def _replace(catalog: BranchCatalog, table: Table) -> None:
    commit = change(catalog, Qualified(*table.name()), table, table.schema(), [], snapshot_properties={})
    commit.finish([_file(table)], commit.files())


def _append_by_pyiceberg(_catalog: BranchCatalog, table: Table) -> None:
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(_file(table))


def _replace_by_pyiceberg(_catalog: BranchCatalog, table: Table) -> None:
    with table.transaction() as transaction:
        transaction.delete(AlwaysTrue())
        with transaction.update_snapshot().fast_append() as snapshot:
            snapshot.append_data_file(_file(table))


def _file(table: Table) -> DataFile:
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"{table.location()}/data/{uuid4()}.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=500,
        column_sizes={1: 50, 2: 50},
        value_counts={1: 1, 2: 1},
        null_value_counts={1: 0, 2: 0},
        nan_value_counts={},
        lower_bounds={1: bytes(8), 2: b"one"},
        upper_bounds={1: bytes(8), 2: b"one"},
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
