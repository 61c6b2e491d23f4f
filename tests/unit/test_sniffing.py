"""A CSV file that was looked at once is read as DuckDB reads it when it looks by itself."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from contracts.landing import ClaimedFile
from services.runner.engine.binding import ZoneContent, bind, escaped
from services.runner.engine.sniffing import Sniffed
from services.runner.engine.statement import string
from tests.unit.test_compile import RELATIONS, file, parsed


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def claimed(version: str = "v") -> ClaimedFile:
    return ClaimedFile(file_id=UUID(int=1), filename="a.csv", key="a.csv", version_id=version, size_bytes=1)


def read(connection: duckdb.DuckDBPyConnection, call: str) -> tuple[object, object]:
    columns = connection.execute(f"describe (from {call})").fetchall()
    return columns, repr(connection.execute(f"from {call}").fetchall())


@pytest.mark.parametrize(
    "text",
    [
        "id,name\n1,one\n2,\n",
        "id;name\r\n1,5;'x;y'\r\n",
        'id\tnote\n1,\t"a ""quoted""\nline"\n',
        "1,2\n3,4\n",
        "a title\n\nid,day\n1,2026-01-02\n2,2026-01-03\n",
        "day,at\n28/02/2026,2026-01-02 03:04:05\n",
        "# said\nid,is_good\n1,true\n",
        "\ufeffid,id,ä\n1,2,ß\n",
        'id,name\n1,"x"\n' + "".join(f"{number},x\n" for number in range(30_000)) + '5,"q,r"\n',
        "id\n",
    ],
)
def test_a_file_that_was_looked_at_is_read_as_duckdb_reads_it(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, text: str
) -> None:
    place = tmp_path / "a.csv"
    place.write_bytes(text.encode())

    call = Sniffed(connection).call(claimed(), str(place))

    assert call is not None
    assert "auto_detect=false" in call
    assert read(connection, call) == read(connection, f"read_csv([{string(str(place))}])")


def test_a_file_whose_name_is_a_pattern_is_read(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    place = tmp_path / "a [1]*'s.csv"
    place.write_text("id\n1\n")
    address = f"{tmp_path}/{escaped(place.name)}"

    call = Sniffed(connection).call(claimed(), address)

    assert call is not None
    assert connection.execute(f"from {call}").fetchall() == [(1,)]


def test_a_version_is_looked_at_once(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    place, sniffed = tmp_path / "a.csv", Sniffed(connection)
    place.write_text("id\n1\n")
    first = sniffed.call(claimed("1"), str(place))

    place.write_text("name\nx\n")

    assert sniffed.call(claimed("1"), str(place)) == first
    assert "name" in str(sniffed.call(claimed("2"), str(place)))


def test_names_that_would_end_the_text_of_the_call_are_left_to_duckdb(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    place = tmp_path / "a.csv"
    place.write_text('id,"it\'s"\n1,2\n')

    assert Sniffed(connection).call(claimed(), str(place)) is None


def test_a_file_that_is_not_there_is_left_to_duckdb(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert Sniffed(connection).call(claimed(), str(tmp_path / "none.csv")) is None


@pytest.mark.parametrize(
    ("template", "names", "is_looked_at"),
    [
        ("select * from {{ landing_zone('z') }}", ["a.csv"], True),
        ("select * from {{ landing_zone('z') }}", ["a.csv.gz"], True),
        ("select * from read_csv({{ landing_zone('z') }}) as t", ["a.csv"], True),
        ("select * from READ_CSV_AUTO( {{ landing_zone('z') }} )", ["a.data"], True),
        ("select * from read_csv({{ landing_zone('z') }}, header = false)", ["a.csv"], False),
        ("select * from read_csv({{ landing_zone('z') }})", ["a.csv", "b.csv"], False),
        ("select * from {{ landing_zone('z') }}", ["a.parquet"], False),
        ("select * from read_json({{ landing_zone('z') }})", ["a.csv"], False),
    ],
)
def test_only_a_lone_file_without_options_is_looked_at(
    connection: duckdb.DuckDBPyConnection, template: str, names: list[str], is_looked_at: bool
) -> None:
    statement = parsed(connection, template)
    zones = {use.call.placeholder: ZoneContent([file(name) for name in names]) for use in statement.zones}

    runs = bind(statement, RELATIONS, zones, "rat", lambda one, _: f"read_csv('{one.filename}', looked = 'yes')")

    assert ("looked = 'yes'" in runs.sql) is is_looked_at
