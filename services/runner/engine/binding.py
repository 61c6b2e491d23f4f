"""A query with its tables and files in place: what DuckDB runs, and where each piece of it was written."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import duckdb

from contracts.landing import ClaimedFile
from contracts.names import Qualified
from services.runner.engine.statement import Statement, ZoneUse, identifier, string
from services.runner.problems import AuthorError, Problem

_READERS: Final[Mapping[str, str]] = {
    "csv": "read_csv",
    "tsv": "read_csv",
    "txt": "read_csv",
    "json": "read_json",
    "jsonl": "read_json",
    "ndjson": "read_json",
    "parquet": "read_parquet",
}
"""The reader of a file by its ending, where the author names none."""

_LOOKED_AT: Final = "auto_detect=false"
"""What stands in the call that reads a file which was looked at."""

_COMPRESSED: Final = (".gz", ".zst")

CsvCall: TypeAlias = Callable[[ClaimedFile, str], str | None]
"""The call that reads a file, at this address, as `read_csv` does without options; None where that cannot be said."""


@dataclass(frozen=True)
class Edit:
    """A piece of a text, in bytes of UTF-8, and what stands there instead."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ZoneContent:
    """What a landing zone holds for a run."""

    files: Sequence[ClaimedFile]
    expected_schema: str = ""
    last_file: ClaimedFile | None = None


class Query(Protocol):
    """What DuckDB runs for an author, and how what is wrong with it is told to them."""

    @property
    def sql(self) -> str:
        """One SELECT."""

    def problem(self, message: str, position: int | None) -> Problem:
        """A problem with what runs at this byte of `sql`, told by the author's file."""


@dataclass(frozen=True)
class Bound:
    """A statement with its tables and files in place: what DuckDB runs."""

    statement: Statement
    sql: str
    edits: tuple[Edit, ...]

    def problem(self, message: str, position: int | None) -> Problem:
        """A problem with what runs at this byte of `sql`, told by line and column of the author's file."""
        if any(_LOOKED_AT in edit.text for edit in self.edits):
            # What was found out about a file, DuckDB takes for what its author has set.
            message = message.replace("(Set By User)", "(Auto-Detected)")
        if position is None:
            return self.statement.problem(message)
        shift = 0
        for edit in self.edits:
            start = edit.start + shift
            length = len(edit.text.encode())
            if position < start:
                break
            if position < start + length:
                return self.statement.problem(message, edit.start)
            shift += length - (edit.end - edit.start)
        return self.statement.problem(message, position - shift)


def as_it_is(_file: ClaimedFile, _location: str) -> str | None:
    """Let DuckDB find out what a CSV file is like."""
    return None


def bind(
    statement: Statement,
    relations: Mapping[Qualified, str],
    zones: Mapping[str, ZoneContent],
    bucket: str,
    csv_call: CsvCall = as_it_is,
) -> Bound:
    """Put relations in the place of tables, and files in the place of landing zones.

    `relations` are pieces of SQL by table, `zones` contents by placeholder; `csv_call` reads a file that is alone in
    its zone. `AuthorError` where a table is missing, or an empty zone does not tell its columns.
    """
    edits: list[Edit] = []
    for use in statement.tables:
        if use.table not in relations:
            raise AuthorError(statement.problem(f"there is no table {str(use.table)!r}", use.start))
        alias = "" if use.has_alias else f' as "{use.table.name}"'
        start, lead = _lead(statement, use.start)
        edits.append(Edit(start, use.end, f"{lead}{relations[use.table]}{alias}"))
    edits += [Edit(use.start, use.end, f'"{use.table.name}"') for use in statement.columns]
    for zone in statement.zones:
        edits += _zone_edits(statement, zone, zones[zone.call.placeholder], bucket, csv_call)
    edits.sort(key=lambda edit: (edit.start, edit.end))
    return Bound(statement, edited(statement.sql, edits), tuple(edits))


def _lead(statement: Statement, start: int) -> tuple[int, str]:
    """Where the name of a relation begins with what takes names only, and what takes the place of that."""
    found = _TAKES_NAMES.search(statement.sql.encode()[:start])
    if found is None:
        return start, ""
    return (found.start() if found[0].lower().startswith(b"table") else start), "from "


_TAKES_NAMES: Final = re.compile(rb"\b(table|summarize|describe|desc)\s+\Z", re.IGNORECASE)


def edited(sql: str, edits: Sequence[Edit]) -> str:
    """A text with other pieces in it; the edits are in order, and do not overlap."""
    text = sql.encode()
    pieces: list[bytes] = []
    done = 0
    for edit in edits:
        pieces += [text[done : edit.start], edit.text.encode()]
        done = edit.end
    return b"".join([*pieces, text[done:]]).decode()


# Files in the place of landing zones


def _zone_edits(statement: Statement, use: ZoneUse, content: ZoneContent, bucket: str, csv_call: CsvCall) -> list[Edit]:
    alias = "" if use.has_alias else f' as "{use.call.zone if use.reader is None else use.reader_name}"'
    if content.files:
        call = _call_of_only_file(statement, use, content.files, bucket, csv_call)
        if call is not None:
            start, end = use.reader or (use.start, use.end)
            start, lead = _lead(statement, start)
            return [Edit(start, end, f"{lead}{call}{alias}")]
        files = _file_list(content.files, bucket)
        if use.reader is not None:
            return [Edit(use.start, use.end, files)]
        start, lead = _lead(statement, use.start)
        return [Edit(start, use.end, f"{lead}{_reader(statement, use, content.files)}({files}){alias}")]
    start, end = use.reader or (use.start, use.end)
    if content.expected_schema:
        columns = _empty_columns(statement, use, content.expected_schema)
        return [Edit(start, end, f"(select {columns} where false){alias}")]
    if content.last_file is None:
        name = f"{use.call.namespace}/{use.call.zone}"
        message = f"landing zone {name} is empty, and neither an expected_schema nor an earlier file tells its columns"
        raise AuthorError(statement.problem(message, use.start))
    last = _file_list([content.last_file], bucket)
    if use.reader is None:
        reader = _reader(statement, use, [content.last_file])
        return [Edit(start, end, f"(select * from {reader}({last}) where false){alias}")]
    return [
        Edit(start, start, "(select * from "),
        Edit(use.start, use.end, last),
        Edit(end, end, f" where false){alias}"),
    ]


def _call_of_only_file(
    statement: Statement, use: ZoneUse, files: Sequence[ClaimedFile], bucket: str, csv_call: CsvCall
) -> str | None:
    """The call that reads a CSV file without looking what it is like, where the author leaves all of that to DuckDB.

    Of several files, DuckDB looks at each.
    """
    if len(files) > 1 or not _is_read_csv(statement, use, files[0].filename):
        return None
    return csv_call(files[0], _location(files[0], bucket))


def _is_read_csv(statement: Statement, use: ZoneUse, filename: str) -> bool:
    """Whether a zone is read by `read_csv` without options."""
    if use.reader is None:
        return _reader_of(filename) == "read_csv"
    start, end = use.reader
    text = statement.sql.encode()
    before, after = text[start : use.start].decode(), text[use.end : end].decode()
    return re.fullmatch(r"read_csv(_auto)?\s*\(\s*", before, re.IGNORECASE) is not None and after.strip() == ")"


def _file_list(files: Collection[ClaimedFile], bucket: str) -> str:
    return "[" + ", ".join(string(_location(file, bucket)) for file in files) + "]"


def _location(file: ClaimedFile, bucket: str) -> str:
    return f"s3://{bucket}/{escaped(file.key)}"


def escaped(key: str) -> str:
    """A key as DuckDB's readers take it: they read every name as a pattern."""
    return re.sub(r"[\[*]", lambda sign: f"[{sign[0]}]", key)


def _reader(statement: Statement, use: ZoneUse, files: Collection[ClaimedFile]) -> str:
    readers = {_reader_of(file.filename): file.filename for file in files}
    if len(readers) == 1 and None not in readers:
        return str(next(iter(readers)))
    if None in readers:
        message = f"no reader for {readers[None]!r} by its ending: name one, as `read_csv({{{{ landing_zone(…) }}}})`"
    else:
        names = " and ".join(repr(name) for name in list(readers.values())[:2])
        message = f"{names} need different readers: name one, as `read_csv({{{{ landing_zone(…) }}}})`"
    raise AuthorError(statement.problem(message, use.start))


def _reader_of(filename: str) -> str | None:
    name = filename.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return _READERS.get(name.rpartition(".")[2])


def _empty_columns(statement: Statement, use: ZoneUse, expected_schema: str) -> str:
    """The columns of a zone's DDL, as expressions without a value."""
    try:
        with duckdb.connect() as scratch:
            scratch.execute(f"create table expected ({expected_schema})")
            columns = scratch.execute("select column_name, column_type from (describe expected)").fetchall()
    except duckdb.Error as error:
        message = f"the expected_schema of landing zone {use.call.zone} does not parse: {error}"
        raise AuthorError(statement.problem(message, use.start)) from error
    return ", ".join(f"null::{kind} as {identifier(name)}" for name, kind in columns)
