"""Pipelines that are views: what their query may read, how it is kept, and how it is put in the place of their name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import duckdb
from pyiceberg.schema import Schema

from contracts.names import Qualified
from services.runner.domain import FailureKind
from services.runner.engine.batch import Written
from services.runner.engine.binding import Bound, Edit, bind, edited
from services.runner.engine.schema import SchemaError, columns_of, schema_of
from services.runner.engine.session import errors_of
from services.runner.engine.statement import Statement, identifier, name_end
from services.runner.problems import Problem, WorkFailed
from services.runner.python.source import PYTHON_FILE, Source
from services.runner.target import PIPELINE_ID, Target
from shared.errors import Invalid
from shared.lakehouse.port import RelationKind
from shared.lakehouse.view_metadata import version_of, write_view
from shared.lakehouse.views import DIALECT, in_order
from shared.sql_trees import tree_of

_READERS: Final = ("read_", "parquet_", "sniff_csv", "glob", "iceberg_", "sqlite_", "postgres_", "query")
"""What the functions begin with that read something else than the platform's tables."""


def view_problems(
    connection: duckdb.DuckDBPyConnection, statement: Statement | Source, pipeline: Qualified
) -> list[Problem]:
    """What a view's query reads that is not there whenever somebody reads the view: files, zones, the view itself."""
    if isinstance(statement, Source):
        return [Problem(PYTHON_FILE, "a view is a query in SQL: what Python gives is only there once it has run", 1)]
    problems = [
        statement.problem(
            f"a view reads no landing zone, as {zone.call.zone!r}: its query runs whenever it is read, and files go;"
            " use materialized: table",
            zone.start,
        )
        for zone in statement.zones
    ]
    problems += [
        statement.problem("a view cannot read itself: there is no `this` before the view is there", use.start)
        for use in statement.tables
        if use.table == pipeline
    ]
    return problems + list(_file_problems(connection, statement))


def _file_problems(connection: duckdb.DuckDBPyConnection, statement: Statement) -> Iterator[Problem]:
    in_zones = {zone.reader[0] for zone in statement.zones if zone.reader is not None}
    for node in _nodes(tree_of(connection, statement.sql)):
        match node:
            case {"type": "BASE_TABLE", "schema_name": "", "table_name": name} if any(sign in name for sign in "/.*"):
                place, what = node["query_location"], f"the file {name!r}"
            case {"type": "TABLE_FUNCTION", "function": {"function_name": name, "query_location": place}} if (
                name.startswith(_READERS) and place not in in_zones
            ):
                what = f"files, as {name}() would"
            case _:
                continue
        message = f"a view cannot read {what}: it reads the platform's tables; use materialized: table"
        yield statement.problem(message, int(place))


def view_query(statement: Statement) -> str:
    """The query of a view as it is kept: with the whole names of what it reads."""
    return bind(statement, {table: _named(table) for table in statement.tables_named}, {}, "").sql


def write_view_of(connection: duckdb.DuckDBPyConnection, bound: Bound, sql: str, target: Target) -> Written:
    """Put a view on the branch in the place of whatever is there; nothing changes where it is there as it is."""
    schema = _schema(connection, bound)
    catalog, name = target.catalog, target.name
    found = catalog.relation(name)
    properties = {PIPELINE_ID: str(target.pipeline_id)}
    if found is not None and found.kind is RelationKind.VIEW:
        present = catalog.load_view(tuple(name))
        told = present.sql_for(DIALECT)
        is_same = told is not None and told.sql == sql and present.schema().fields == schema.fields
        if is_same and present.properties == properties:
            return Written(0, 0, 0, None, has_changed=False)
    _, file = write_view(catalog.files, catalog.new_folder(name), name, schema, version_of(name, sql), properties)
    catalog.move(name, found.location if found else None, file)
    return Written(0, 0, 0, None, has_changed=True)


def _schema(connection: duckdb.DuckDBPyConnection, bound: Bound) -> Schema:
    try:
        with errors_of(bound, "describe (\n"):
            return schema_of(columns_of(connection, f"(\n{bound.sql}\n)"))
    except SchemaError as error:
        raise WorkFailed(FailureKind.SCHEMA, str(error)) from error


@dataclass(frozen=True)
class _Read:
    table: Qualified
    start: int
    end: int
    has_alias: bool


def names_read(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Qualified]:
    """The tables and views that the query of a view names."""
    return list(dict.fromkeys(read.table for read in _reads(connection, sql)))


def inlined(
    connection: duckdb.DuckDBPyConnection, views: Mapping[Qualified, str], tables: Mapping[Qualified, str]
) -> dict[Qualified, str]:
    """Each view as a relation in SQL, made of the relations of the tables; `views` are their queries.

    `Invalid` says which view reads what does not exist, or itself.
    """
    reads = {view: _reads(connection, sql) for view, sql in views.items()}
    relations = dict(tables)
    for view in in_order({view: {read.table for read in of_view} for view, of_view in reads.items()}):
        edits = []
        for read in reads[view]:
            if read.table not in relations:
                raise Invalid(f"view {view} reads {read.table}, which does not exist")
            alias = "" if read.has_alias else f" as {identifier(read.table.name)}"
            edits.append(Edit(read.start, read.end, relations[read.table] + alias))
        relations[view] = f"(\n{edited(views[view], edits)}\n)"
    return {view: relations[view] for view in views}


def _reads(connection: duckdb.DuckDBPyConnection, sql: str) -> list[_Read]:
    text = sql.encode()
    reads = []
    for node in _nodes(tree_of(connection, sql)):
        match node:
            case {"type": "BASE_TABLE", "catalog_name": str(namespace), "schema_name": layer, "table_name": name} if (
                namespace
            ):
                start = int(node["query_location"])
                table = Qualified.parse(f"{namespace}.{layer}.{name}")
                reads.append(_Read(table, start, name_end(text, start, 3), bool(node["alias"])))
    return sorted(reads, key=lambda read: read.start)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        match pending.pop():
            case dict() as node:
                yield node
                pending.extend(node.values())
            case list() as items:
                pending.extend(items)


def _named(table: Qualified) -> str:
    return ".".join(identifier(part) for part in table)
