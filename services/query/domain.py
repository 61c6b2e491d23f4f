"""What a statement may say, which tables it names, and how its mistakes are told, by DuckDB's own parse tree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from contracts.names import Layer, Qualified
from shared.errors import Exhausted, Internal, Invalid, RatError, TimedOut, Unavailable
from shared.sql_names import Quoted, line_and_column

_EXCERPT: Final = 80
_NOWHERE: Final = 2**63
"""From here on, positions in a parse tree mean that there is none."""

TABLE_FUNCTIONS: Final = frozenset(
    {
        "generate_series",
        "icu_calendar_names",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "range",
        "repeat",
        "repeat_row",
        "test_all_types",
        "unnest",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_types",
    }
)
"""What may stand in a FROM with parentheses: nothing that reads files, runs other SQL or tells how we are set up."""

_LISTING_FUNCTIONS: Final = frozenset({"duckdb_columns", "duckdb_tables", "duckdb_views"})
_LISTING_VIEWS: Final = _LISTING_FUNCTIONS | {"sqlite_master", "sqlite_schema"}
_LISTING_SCHEMAS: Final = frozenset({"information_schema", "pg_catalog"})


@dataclass(frozen=True)
class Problem:
    """Something wrong with a statement, at an offset in bytes if it has a place."""

    message: str
    position: int | None = None


@dataclass(frozen=True)
class Reference:
    """A table that a statement names, and where."""

    table: Qualified
    written: str
    position: int


@dataclass(frozen=True)
class Names:
    """What a statement reads."""

    references: tuple[Reference, ...]
    lists_tables: bool
    """Whether it asks which tables there are: by SHOW, or from `information_schema`."""


def names_in(tree: Any, namespace: str) -> Names | Problem:
    """The tables that a parse tree (as `json_serialize_sql` writes it) names, or what it may not contain."""
    references: list[Reference] = []
    lists_tables = False
    for node in _nodes(tree):
        match node.get("type"):
            case "BASE_TABLE":
                found = _reference(node, namespace)
            case "TABLE_FUNCTION":
                found = _function(node["function"])
            case "SHOW_REF":
                found = node.get("query") is None
            case _:
                continue
        match found:
            case Problem():
                return found
            case Reference():
                references.append(found)
            case _:
                lists_tables |= found
    return Names(tuple(references), lists_tables)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        match pending.pop():
            case dict() as node:
                if isinstance(node.get("type"), str):
                    yield node
                pending.extend(reversed(node.values()))
            case list() as items:
                pending.extend(reversed(items))


def _reference(node: dict[str, Any], namespace: str) -> Reference | Problem | bool:
    catalog, schema, name = (node[part].lower() for part in ("catalog_name", "schema_name", "table_name"))
    written = ".".join(part for part in (catalog, schema, name) if part)
    position = _position(node)
    if any(character in part for part in (catalog, schema, name) for character in "./\\:*"):
        # DuckDB would take it for the name of a file.
        return Problem(f"Catalog Error: Table with name {written} does not exist! A query reads no files.", position)
    if schema in _LISTING_SCHEMAS:
        return True
    if schema:
        return Reference(Qualified(catalog or namespace, schema, name), written, position or 0)
    return name in _LISTING_VIEWS


def _function(function: dict[str, Any]) -> Problem | bool:
    name = function["function_name"].lower()
    if name in _LISTING_FUNCTIONS:
        return True
    if name in TABLE_FUNCTIONS:
        return False
    return Problem(
        f"Permission Error: {name}() cannot be used here: a query reads the platform's tables.", _position(function)
    )


def _position(node: dict[str, Any]) -> int | None:
    position: int = node.get("query_location", _NOWHERE)
    return position if position < _NOWHERE else None


def unknown_table(reference: Reference, known: Sequence[Qualified], namespace: str) -> Problem:
    """Say that there is no such table, and which ones have names like it."""
    names = [str(table) for table in known]
    names += [f"{table.layer}.{table.name}" for table in known if table.namespace == namespace]
    near = get_close_matches(reference.written, names, n=3)
    hint = f"\nDid you mean {' or '.join(near)}?" if near else ""
    layer = reference.table.layer
    if not near and layer not in tuple(Layer):
        hint = f"\n{layer!r} is no layer: tables are named namespace.layer.table or layer.table."
    return Problem(f"Catalog Error: Table with name {reference.written} does not exist!{hint}", reference.position)


def error_of(kind: str, problem: Problem, quoted: Quoted) -> RatError:
    """The error to raise for what DuckDB says of a kind (`Binder`, `IO` …), with its place in the author's text."""
    match kind:
        case "IO" | "HTTP" | "Connection":
            return Unavailable("a table's files cannot be read now")
        case "INTERNAL" | "FATAL" | "Serialization":
            return Internal("DuckDB failed; the log of the query service has the details")
        case "Out of Memory":
            return Exhausted(f"the query needs more memory than it may use: {problem.message}")
        case "INTERRUPT":
            return TimedOut("the query was interrupted")
        case _:
            return invalid(problem, quoted)


def invalid(problem: Problem, quoted: Quoted) -> Invalid:
    """What is wrong with the author's SQL, with `line` and `column` where it has a place."""
    if problem.position is None:
        return Invalid(problem.message)
    position = quoted.author_position(problem.position)
    line, column = line_and_column(quoted.author, position)
    excerpt = _excerpt(quoted.author.split("\n")[line - 1], line, column)
    hint = ""
    if quoted.author.encode()[position : position + 1] == b"-":
        hint = '\n\nNames with "-" need double quotes.'
    return Invalid(f"{problem.message}\n\n{excerpt}{hint}", details={"line": line, "column": column})


def _excerpt(text: str, line: int, column: int) -> str:
    """The line with a mark below the place, as DuckDB shows it."""
    start = max(0, column - 1 - _EXCERPT // 2)
    end = start + _EXCERPT
    shown = ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
    label = f"LINE {line}: "
    mark = len(label) + column - 1 - start + (3 if start else 0)
    return f"{label}{shown}\n{' ' * mark}^"
