"""A process that runs one statement at a time, each in a database of its own that sees nothing but the tables it names.

It holds the read-only keys of the bucket and no others, and is killed when a statement takes too long.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from io import RawIOBase
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

import duckdb
import pyarrow as pa

from contracts.names import Qualified
from services.query.domain import Names, Problem, Reference, error_of, names_in, unknown_table
from services.query.frames import HEADER, Ask, Ended, Failed, Found, Kind, Named, frame
from shared.duckdb_engine import connect
from shared.errors import Internal, Invalid, RatError, Unavailable
from shared.lakehouse.views import in_order
from shared.settings import Settings
from shared.sql_names import Quoted, quote_reserved
from shared.sql_trees import tree_of

TYPE_KEY: Final = b"rat:type"
"""The key of a field's metadata under which its DuckDB type stands."""
_BATCH_ROWS: Final = 10_000
_RECYCLE: Final = 500
"""Statements after which a worker ends, and its memory with it."""
_OPTIONS: Final = ([b"analyze"], [b"analyse"], [b"verbose"], [b"format"])
_ONE_SELECT: Final = "exactly one SELECT, EXPLAIN, DESCRIBE, SUMMARIZE or SHOW can be run here"


class Refused(Exception):
    """What DuckDB, or a rule of ours, has against a statement."""

    def __init__(self, kind: str, problem: Problem) -> None:
        super().__init__(problem.message)
        self.kind = kind
        self.problem = problem


def main() -> None:
    """Run statements from standard input until it is closed."""
    settings = Settings()
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    # Whatever a library prints must not end up between the frames.
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for _ in range(_RECYCLE):
        with connect(
            settings,
            "query",
            memory_limit=settings.query_memory_limit,
            temp_directory=settings.spill_directory,
        ) as database:
            _send(pipe, Kind.READY)
            _answer(database, requests, pipe)


def _read(source: BinaryIO, requests: "SimpleQueue[dict[str, Any]]") -> None:
    """Hand on what comes; when nothing can come any more, end the process, whatever it is doing."""
    while len(header := source.read(HEADER.size)) == HEADER.size:
        _, length = HEADER.unpack(header)
        requests.put(json.loads(source.read(length)))
    os._exit(0)


def _send(pipe: BinaryIO | RawIOBase, kind: Kind, body: object = None) -> None:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    view = memoryview(frame(kind, content))
    while view:
        view = view[pipe.write(view) :]


def _answer(
    database: duckdb.DuckDBPyConnection, requests: "SimpleQueue[dict[str, Any]]", pipe: BinaryIO | RawIOBase
) -> None:
    ask = Ask(**requests.get())  # type: ignore[typeddict-item]  # our own frames
    quoted = quote_reserved(ask["sql"])
    try:
        try:
            database.execute("set errors_as_json = true")
            # The files of a table never change: they are looked at once a query.
            database.execute("set enable_http_metadata_cache = true")
            names = parse(database, quoted.sql, ask["namespace"])
            tables = sorted({str(reference.table) for reference in names.references})
            _send(pipe, Kind.NAMES, Named(tables=tables, lists_tables=names.lists_tables))
            found = Found(**requests.get())  # type: ignore[typeddict-item]
            _check_found(names, found, ask["namespace"])
            reads = _look_into_views(database, found, requests, pipe)
            _register(database, names, found, reads, ask["namespace"])
            _lock(database, found)
            _send(pipe, Kind.END, _run(database, quoted.sql, ask["limit"], pipe))
        except duckdb.Error as error:
            raise _refused(error) from error
    except Refused as error:
        _send_error(pipe, error, quoted)


def _send_error(pipe: BinaryIO | RawIOBase, refused: Refused, quoted: Quoted) -> None:
    error: RatError = error_of(refused.kind, refused.problem, quoted)
    if isinstance(error, Internal | Unavailable):
        sys.stderr.write(f"query worker: {refused.kind}: {refused.problem.message}\n")
    _send(pipe, Kind.ERROR, Failed(code=error.code, message=error.message, details=error.details))


def parse(database: duckdb.DuckDBPyConnection, sql: str, namespace: str) -> Names:
    """The names in a statement, if DuckDB's own parser finds that it is one that may run; else `Refused`."""
    statements = database.extract_statements(sql)
    if len(statements) != 1:
        raise Refused("Parser", Problem(f"Parser Error: {_ONE_SELECT}; there are {len(statements)} statements"))
    read = _explained(sql) if statements[0].type == duckdb.StatementType.EXPLAIN else sql
    # DESCRIBE, SUMMARIZE and SHOW are SELECTs to DuckDB.
    tree = tree_of(database, read)
    if tree["error"]:
        raise Refused("Parser", _no_tree(tree, statements[0]))
    found = names_in(tree, namespace)
    offset = len(sql.encode()) - len(read.encode())
    if isinstance(found, Problem):
        position = None if found.position is None else found.position + offset
        raise Refused("Parser", Problem(found.message, position))
    references = (Reference(it.table, it.written, it.position + offset) for it in found.references)
    return Names(tuple(references), found.lists_tables)


def _no_tree(tree: dict[str, Any], statement: duckdb.Statement) -> Problem:
    if tree["error_type"] != "not implemented":
        return Problem(f"Parser Error: {tree['error_message']}")
    # Some PRAGMAs count as SELECT to DuckDB, but not to its serializer.
    kind = "PRAGMA" if statement.type == duckdb.StatementType.SELECT else statement.type.name
    return Problem(f"Parser Error: {_ONE_SELECT}; this is {kind}")


def _explained(sql: str) -> str:
    """The statement that an EXPLAIN explains: what follows `explain [analyze] [verbose]` or `explain (options)`."""
    text = sql.encode()
    starts = [start for start, _ in duckdb.tokenize(sql)]
    words = [text[start:end].split()[0].lower() for start, end in pairwise([*starts, len(text)])]
    position = 1
    if words[1:2] == [b"("] and words[2:3] in _OPTIONS:
        position = words.index(b")") + 1
    else:
        while words[position : position + 1] in _OPTIONS:
            position += 1
    return text[starts[position] :].decode() if position < len(starts) else ""


def _check_found(names: Names, found: Found, namespace: str) -> None:
    known = [Qualified.parse(name) for name in found["known"]]
    for reference in names.references:
        if str(reference.table) not in found["locations"] | found["views"]:
            raise Refused("Catalog", unknown_table(reference, known, namespace))


def _look_into_views(
    database: duckdb.DuckDBPyConnection,
    found: Found,
    requests: "SimpleQueue[dict[str, Any]]",
    pipe: BinaryIO | RawIOBase,
) -> dict[Qualified, set[Qualified]]:
    """What each view reads; what they name is asked for and put into `found`, until it is all there."""
    reads: dict[Qualified, set[Qualified]] = {}
    while unread := found["views"].keys() - {str(view) for view in reads}:
        for name in sorted(unread):
            view = Qualified.parse(name)
            reads[view] = _read_by(database, view, found["views"][name])
        known = found["locations"] | found["views"]
        missing = sorted({str(table) for tables in reads.values() for table in tables} - known.keys())
        if not missing:
            break
        _send(pipe, Kind.NAMES, Named(tables=missing, lists_tables=False))
        more = Found(**requests.get())  # type: ignore[typeddict-item]
        found["locations"] |= more["locations"]
        found["views"] |= more["views"]
        _check_views(reads, found)
    return reads


def _read_by(database: duckdb.DuckDBPyConnection, view: Qualified, sql: str) -> set[Qualified]:
    """The tables and views that a view names; it may say what a statement may."""
    try:
        return {reference.table for reference in parse(database, sql, view.namespace).references}
    except Refused as error:
        raise _in_view(view, error) from error
    except duckdb.Error as error:
        raise _in_view(view, _refused(error)) from error


def _check_views(reads: Mapping[Qualified, set[Qualified]], found: Found) -> None:
    for view, tables in sorted(reads.items()):
        gone = sorted(str(table) for table in tables if str(table) not in found["locations"] | found["views"])
        if gone:
            problem = Problem(f"Catalog Error: View {view} reads {gone[0]}, which does not exist!")
            raise Refused("Catalog", problem)


def _in_view(view: Qualified, refused: Refused) -> Refused:
    """What is wrong with the query of a view, which has no place in the statement that reads it."""
    return Refused(refused.kind, Problem(f"View {view} cannot be read: {refused.problem.message}"))


def _views_in_order(reads: Mapping[Qualified, set[Qualified]]) -> list[Qualified]:
    try:
        return in_order(reads)
    except Invalid as error:
        raise Refused("Catalog", Problem(f"Catalog Error: {error.message}")) from error


def _register(
    database: duckdb.DuckDBPyConnection,
    names: Names,
    found: Found,
    reads: Mapping[Qualified, set[Qualified]],
    namespace: str,
) -> None:
    tables = {Qualified.parse(name) for name in (*found["locations"], *found["views"], *found["columns"])}
    for catalog in sorted({table.namespace for table in tables} | {namespace}):
        _attach(database, catalog)
    for catalog, layer in sorted({(table.namespace, table.layer) for table in tables}):
        database.execute(f"create schema {_name(catalog, layer)}")
    for name, location in found["locations"].items():
        database.execute(f"create view {_name(*name.split('.'))} as from iceberg_scan({_text(location)})")
    for view in _views_in_order(reads):
        try:
            database.execute(f"create view {_name(*view)} as\n{found['views'][str(view)]}")
        except duckdb.Error as error:
            raise _in_view(view, _refused(error)) from error
    for name, columns in found["columns"].items():
        if name not in found["locations"] | found["views"]:
            declared = ", ".join(f"{_name(column)} {kind}" for column, kind in columns)
            database.execute(f"create table {_name(*name.split('.'))} ({declared})")
    database.execute(f"use {_name(namespace)}")
    if names.lists_tables:
        layers = sorted({table.layer for table in tables if table.namespace == namespace})
        path = ",".join(_name(namespace, layer) for layer in layers) or _name(namespace, "main")
        database.execute(f"set search_path = {_text(path)}")


def _attach(database: duckdb.DuckDBPyConnection, namespace: str) -> None:
    if namespace in ("system", "temp"):
        raise Refused("Catalog", Problem(f"Catalog Error: DuckDB keeps the name {namespace!r} for itself"))
    if namespace != "memory":
        database.execute(f"attach ':memory:' as {_name(namespace)}")


def _lock(database: duckdb.DuckDBPyConnection, found: Found) -> None:
    """From here on nothing is read but the files of these tables, and this cannot be changed back."""
    folders = [location.rsplit("/metadata/", 1)[0] + "/" for location in found["locations"].values()]
    database.execute(f"set allowed_directories = [{', '.join(_text(folder) for folder in folders)}]")
    database.execute("set python_enable_replacements = false")
    database.execute("set enable_external_access = false")
    database.execute("set lock_configuration = true")


def _run(database: duckdb.DuckDBPyConnection, sql: str, limit: int, pipe: BinaryIO | RawIOBase) -> Ended:
    result = database.execute(sql)
    types = [str(column[1]) for column in result.description or []]
    reader = result.to_arrow_reader(min(limit + 1, _BATCH_ROWS))
    fields = [
        pa.field(name, _undictionaried(field.type), metadata={**(field.metadata or {}), TYPE_KEY: kind.encode()})
        for name, field, kind in zip(unique(reader.schema.names), reader.schema, types, strict=True)
    ]
    schema = pa.schema(fields)
    rows = 0
    truncated = False
    with pa.ipc.new_stream(_Pieces(pipe), schema) as stream:
        for batch in reader:
            wanted = batch.slice(0, limit - rows)
            truncated = wanted.num_rows < batch.num_rows
            if wanted.num_rows:
                columns = [column.cast(field.type) for column, field in zip(wanted.columns, schema, strict=True)]
                stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += wanted.num_rows
            if truncated:
                break
    return Ended(rows=rows, truncated=truncated)


def _undictionaried(kind: pa.DataType) -> pa.DataType:
    """An enum travels as its texts, so that a stream is a schema and record batches and nothing else."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def unique(names: list[str]) -> list[str]:
    """The names, with `_1`, `_2` … after those that would occur again."""
    taken: set[str] = set()
    result = []
    for name in names:
        numbered = (name, *(f"{name}_{number}" for number in range(1, len(names))))
        free = next(candidate for candidate in numbered if candidate.lower() not in taken)
        taken.add(free.lower())
        result.append(free)
    return result


class _Pieces(RawIOBase):
    """Where Arrow writes its stream: each piece becomes a frame."""

    def __init__(self, pipe: BinaryIO | RawIOBase) -> None:
        self._pipe = pipe

    def writable(self) -> bool:
        """Arrow asks."""
        return True

    def write(self, piece: Any) -> int:
        """Send a piece."""
        content = bytes(piece)
        _send(self._pipe, Kind.ARROW, content)
        return len(content)


def _refused(error: duckdb.Error) -> Refused:
    """What DuckDB said, which it says as JSON after the kind of error."""
    text = str(error)
    kind, _, rest = text.partition(" Error: ")
    try:
        said: Mapping[str, str] = json.loads(rest)
    except ValueError:
        return Refused(kind, Problem(text))
    position = said.get("position")
    return Refused(
        said["exception_type"],
        Problem(f"{kind} Error: {said['exception_message']}", None if position is None else int(position)),
    )


def _name(*parts: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    main()
