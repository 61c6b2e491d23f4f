"""When small files are worth being written anew, when maintenance steps back, and in which order views are read."""

from uuid import UUID

import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntry, ManifestEntryStatus
from pyiceberg.typedef import Record

from contracts.names import Qualified
from services.runner.domain import may_interrupt
from services.runner.engine.compaction import SMALL_BYTES, small_files
from shared.errors import Invalid
from shared.lakehouse.manifests import PresentFile
from shared.lakehouse.views import in_order, query_of

IDS = [UUID(int=number) for number in range(5)]


def file(
    name: str, *, rows: int = 1, size: int = 1000, partition: tuple[object, ...] = (), spec: int = 0
) -> PresentFile:
    entry = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=name,
        file_format=FileFormat.PARQUET,
        partition=Record(*partition),
        record_count=rows,
        file_size_in_bytes=size,
    )
    entry.spec_id = spec
    return PresentFile(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=1, data_file=entry), "m")


def names(files: list[PresentFile]) -> list[str]:
    return [one.location for one in files]


def test_many_files_of_a_kind_are_worth_it_and_a_few_are_not() -> None:
    files = [file(str(number)) for number in range(5)]

    assert names(small_files(files, 0, at_least=5)) == ["0", "1", "2", "3", "4"]
    assert small_files(files, 0, at_least=6) == []


def test_files_of_other_sizes_partitions_and_specs_are_no_company() -> None:
    alike = [file(f"a{number}") for number in range(3)]
    large = [file(f"b{number}", rows=1000) for number in range(2)]
    elsewhere = [file(f"c{number}", partition=("x",)) for number in range(2)]
    older = [file(f"d{number}", spec=7) for number in range(9)]
    huge = [file(f"e{number}", size=SMALL_BYTES) for number in range(9)]

    assert names(small_files([*alike, *large, *elsewhere, *older, *huge], 0, at_least=3)) == ["a0", "a1", "a2"]
    assert names(small_files([*alike, *elsewhere], 0, at_least=2)) == ["a0", "a1", "a2", "c0", "c1"]


def test_a_job_reads_so_much_and_no_more() -> None:
    files = [file(str(number), size=SMALL_BYTES - 1) for number in range(400)]

    taken = small_files(files, 0, at_least=2)

    assert 300 < len(taken) < 350


@pytest.mark.parametrize("appends", [1, 19, 500])
def test_appends_that_are_compacted_as_they_come_are_never_many(appends: int) -> None:
    files: list[PresentFile] = []
    rewritten = 0
    for number in range(appends):
        files.append(file(f"f{number}"))
        if small := small_files(files, 0, at_least=20):
            gone = set(names(small))
            rows = sum(one.rows for one in small)
            rewritten += rows
            files = [one for one in files if one.location not in gone] + [file(f"c{number}", rows=rows)]

    assert sum(one.rows for one in files) == appends
    assert len(files) < 20 * 3
    # A row is written anew about once for each time that the table grows sixteenfold.
    assert rewritten <= appends * 3


def test_maintenance_steps_back_for_a_run_unless_runs_are_short() -> None:
    assert may_interrupt(set(), None)
    assert may_interrupt({IDS[0]}, None)
    assert not may_interrupt({IDS[0]}, IDS[0])
    assert not may_interrupt(set(IDS[:2]), IDS[1])
    assert may_interrupt(set(IDS[:3]), IDS[2])


def view(name: str) -> Qualified:
    return Qualified("default", "silver", name)


def test_views_come_after_what_they_read() -> None:
    reads = {view("c"): [view("b"), view("a")], view("b"): [view("t")], view("a"): [view("b"), view("b")]}

    assert in_order(reads) == [view("b"), view("a"), view("c")]
    assert in_order({}) == []


def test_a_view_that_reads_itself_is_told_with_the_way() -> None:
    reads = {view("a"): [view("b")], view("b"): [view("c")], view("c"): [view("b")]}

    with pytest.raises(Invalid, match="reads itself") as raised:
        in_order(reads)

    way = "default.silver.b → default.silver.c → default.silver.b"
    assert raised.value.message == f"view default.silver.b reads itself: {way}"


def test_the_query_of_a_view_is_that_of_its_current_version_in_our_dialect() -> None:
    def version(number: int, **sql: str) -> dict[str, object]:
        told = [{"type": "sql", "dialect": dialect, "sql": text} for dialect, text in sql.items()]
        return {"version-id": number, "representations": told}

    metadata = {"current-version-id": 2, "versions": [version(1, duckdb="one"), version(2, trino="x", DuckDB="two")]}

    assert query_of(metadata) == "two"
    assert query_of({"current-version-id": 1, "versions": [version(1, spark="x")]}) is None
