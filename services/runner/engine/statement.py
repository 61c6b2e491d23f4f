"""An author's query, parsed by DuckDB: which tables and landing zones it names, and where."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from contracts.names import Layer, Qualified
from services.runner.engine.messages import misspelt_keyword, reworded
from services.runner.problems import AuthorError, Problem, Unsure
from services.runner.template import Rendered, ZoneCall
from shared.similar import closest, did_you_mean
from shared.sql_names import quote_reserved
from shared.sql_trees import tree_of

_BARE_NAME: Final = re.compile(rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*")
_IS_FILE: Final = re.compile(r"[./\\:*]")
_CATALOG_VIEWS: Final = ("duckdb_", "pg_", "sqlite_", "pragma_")
_CATALOG_SCHEMAS: Final = ("information_schema", "pg_catalog")
"""What DuckDB has of its own."""
_QUOTED_NAME: Final = re.compile(rb'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class TableUse:
    """A platform's table where a query names it."""

    table: Qualified
    start: int
    end: int
    has_alias: bool


@dataclass(frozen=True)
class ColumnUse:
    """A column that is named with the whole name of its table."""

    table: Qualified
    start: int
    end: int
    """Of the table's name."""


@dataclass(frozen=True)
class ZoneUse:
    """A landing zone where a query reads it."""

    call: ZoneCall
    start: int
    end: int
    """Of the placeholder."""
    has_alias: bool
    reader: tuple[int, int] | None
    """Where the call of the reader stands that the files are given to; None where the zone stands as a relation."""
    reader_name: str = ""


@dataclass(frozen=True)
class Statement:
    """One query of an author, ready to run once its tables and files are known."""

    rendered: Rendered
    sql: str
    author_bytes: tuple[int, ...]
    """Where quotes stand in `sql` that the author did not write."""
    tables: tuple[TableUse, ...]
    columns: tuple[ColumnUse, ...]
    zones: tuple[ZoneUse, ...]
    columns_given: tuple[str, ...] | None = None
    """The names of its result's columns, where the text alone tells them."""

    @property
    def tables_named(self) -> list[Qualified]:
        """The tables that the query reads, each once."""
        return list(dict.fromkeys(use.table for use in self.tables))

    @property
    def zones_asked(self) -> list[ZoneCall]:
        """The landing zones that the query reads, in each form once."""
        first = {(use.call.namespace, use.call.zone, use.call.form): use.call for use in self.zones}
        return list(first.values())

    def problem(self, message: str, position: int | None = None) -> Problem:
        """A problem with the query at this byte of `sql`, told by line and column of the author's file."""
        if position is None:
            return self.rendered.problem(message)
        before = self.sql.encode()[: max(position, 0)].decode(errors="ignore")
        inserted = bisect_right(self.author_bytes, position - 1)
        return self.rendered.problem(message, len(before) - inserted)


def parse(connection: duckdb.DuckDBPyConnection, rendered: Rendered) -> Statement:
    """Parse an author's query, without running any of it; `AuthorError` if it is not one SELECT."""
    try:
        return _parsed(connection, rendered)
    except AuthorError as error:
        if rendered.missing_parameters:
            raise Unsure(rendered.missing_parameters, *error.problems) from error
        raise


def _parsed(connection: duckdb.DuckDBPyConnection, rendered: Rendered) -> Statement:
    quoted = quote_reserved(rendered.sql)
    sql, inserted = _without_semicolon(quoted.sql), quoted.inserted
    unread = Statement(rendered, sql, inserted, (), (), ())
    if not duckdb.tokenize(sql):
        raise AuthorError(Problem(rendered.path, "there is no query in the file"))
    tree = tree_of(connection, sql)
    if tree["error"]:
        raise AuthorError(_refusal(unread, tree))
    if len(tree["statements"]) != 1:
        raise AuthorError(unread.problem("expected one query, and here begins another", _second(sql)))
    found = _Found(sql.encode(), rendered)
    found.walk(tree["statements"][0]["node"])
    found.check_placeholders(unread)
    found.check_tables(unread)
    return Statement(
        rendered,
        sql,
        inserted,
        tuple(sorted(found.tables, key=lambda use: use.start)),
        tuple(found.columns_of_tables()),
        tuple(sorted(found.zones, key=lambda use: use.start)),
        _columns_given(tree["statements"][0]["node"]),
    )


def _columns_given(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the columns of a SELECT, or None where an expression has no name, or stands for several columns."""
    while node["type"] == "SET_OPERATION_NODE" and node["setop_type"] != "UNION_BY_NAME":
        node = node["left"]
    if node["type"] != "SELECT_NODE" or any(_is_several(item) for item in node["select_list"]):
        return None
    names = [item["alias"] or item.get("column_names", [""])[-1] for item in node["select_list"]]
    return tuple(names) if all(names) else None


def _is_several(expression: Any) -> bool:
    """Whether there is a star in an expression, `COLUMNS(…)`, or `unnest(…)`, of which a struct becomes columns."""
    pending = [expression]
    while pending:
        match pending.pop():
            case {"type": "STAR"} | {"function_name": "unnest"}:
                return True
            case dict() as node:
                pending += node.values()
            case list() as items:
                pending += items
    return False


# Names and places


class _Found:
    """What the parsed tree names, with the place of each in the text."""

    def __init__(self, text: bytes, rendered: Rendered) -> None:
        self._text = text
        self._namespace = rendered.facts.pipeline.namespace
        self._rendered = rendered
        self._calls = {call.placeholder: call for call in rendered.zones}
        self._columns: list[tuple[tuple[str, ...], int]] = []
        self._named_here: set[str] = set()
        self._unknown: list[tuple[list[str], int]] = []
        self.tables: list[TableUse] = []
        self.zones: list[ZoneUse] = []

    def walk(self, tree: Any) -> None:
        """Take the names of a tree, from the first to the last."""
        pending: list[tuple[Any, Mapping[str, Any] | None]] = [(tree, None)]
        while pending:
            match pending.pop():
                case list() as items, reader:
                    pending += [(item, reader) for item in reversed(items)]
                case dict() as node, reader:
                    reader = self._take(node, reader)
                    pending += [(value, reader) for value in reversed(node.values())]

    def _take(self, node: Mapping[str, Any], reader: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Take the name of a node; gives the call of a function that what is below it stands in, as `reader` is it."""
        match node.get("type"):
            case "BASE_TABLE":
                self._take_table(node)
            case "COLUMN_REF":
                self._take_column(node, reader)
            case "TABLE_FUNCTION":
                reader = node
        if "cte_map" in node:
            self._named_here |= {entry["key"].lower() for entry in node["cte_map"]["map"]}
        return reader

    def _take_table(self, node: Mapping[str, Any]) -> None:
        start = int(node["query_location"])
        parts = [part for part in (node["catalog_name"], node["schema_name"], node["table_name"]) if part]
        if len(parts) == 1 and parts[0] in self._calls:
            end = start + len(parts[0])
            self.zones.append(ZoneUse(self._calls[parts[0]], start, end, bool(node["alias"]), None))
            return
        table = self._table(parts)
        if table is None:
            self._unknown.append((parts, start))
            return
        end = name_end(self._text, start, len(parts))
        self.tables.append(TableUse(table, start, end, bool(node["alias"])))

    def _take_column(self, node: Mapping[str, Any], reader: Mapping[str, Any] | None) -> None:
        names = tuple(node["column_names"])
        start = int(node["query_location"])
        if len(names) > 1:
            self._columns.append((names, start))
        if len(names) > 1 or names[0] not in self._calls or reader is None:
            return
        function = reader["function"]
        if not function["function_name"].startswith(("read_", "parquet_", "sniff_csv", "glob")):
            return
        place = int(function["query_location"])
        end = start + len(names[0])
        self.zones.append(
            ZoneUse(
                self._calls[names[0]],
                start,
                end,
                bool(reader["alias"]),
                (place, call_end(self._text, place)),
                function["function_name"],
            )
        )

    def columns_of_tables(self) -> Iterator[ColumnUse]:
        """Columns that are named with two or three parts of the name of a table that the query reads."""
        read = {use.table for use in self.tables}
        for names, start in self._columns:
            for count in (3, 2):
                table = self._table(names[:count]) if len(names) > count else None
                if table is not None and table in read:
                    yield ColumnUse(table, start, name_end(self._text, start, count))
                    break

    def check_tables(self, statement: Statement) -> None:
        """Refuse names of tables that are neither the platform's, nor the query's own, nor a file's."""
        problems = [
            statement.problem(told, start) for parts, start in self._unknown if (told := self._about_unknown(parts))
        ]
        if problems:
            raise AuthorError(*problems)

    def _about_unknown(self, parts: Sequence[str]) -> str | None:
        *others, name = [part.lower() for part in parts]
        if not others:
            if name in self._named_here or _IS_FILE.search(name) or name.startswith(_CATALOG_VIEWS):
                return None
            if meant := closest(name, self._named_here):
                return f"there is no table {parts[0]!r} in the query, did you mean {meant!r}?"
            return (
                f"there is no table {parts[0]!r} in the query: tables of the platform are named layer.table,"
                f" as {{{{ ref('{Layer.BRONZE}.{parts[0]}') }}}}"
            )
        if others[-1] in _CATALOG_SCHEMAS:
            return None
        written = ".".join(parts)
        if others[-1] not in list(Layer):
            message = (
                f"there is no table {written!r}: {others[-1]!r} is no layer{did_you_mean(others[-1], list(Layer))}"
            )
            return message if message.endswith("?") else f"{message} ({', '.join(Layer)})"
        return f"there is no table {written!r}: tables are named namespace.layer.table, in lower case"

    def check_placeholders(self, statement: Statement) -> None:
        """Refuse landing zones that stand neither as a relation nor in a reader; those in comments are none."""
        taken = {use.call.placeholder for use in self.zones}
        tokens = [start for start, _ in duckdb.tokenize(self._text.decode())]
        for start, end in zip(tokens, [*tokens[1:], len(self._text)], strict=True):
            token = without_comments(self._text[start:end])
            for placeholder, call in self._calls.items():
                if placeholder.encode() in token and placeholder not in taken:
                    message = (
                        f"landing_zone({call.zone!r}) stands where neither a table nor the files of a reader can:"
                        " write `from {{ landing_zone(…) }}` or `read_csv({{ landing_zone(…) }}, …)`"
                    )
                    raise AuthorError(statement.problem(message, start))

    def _table(self, parts: Sequence[str]) -> Qualified | None:
        names = [part.lower() for part in parts]
        if len(names) == 2:
            names.insert(0, self._namespace)
        if len(names) != 3 or names[1] not in list(Layer):
            return None
        try:
            return Qualified.parse(".".join(names))
        except ValueError:
            return None


def name_end(text: bytes, start: int, parts: int) -> int:
    """Where a name of so many parts ends that begins at `start`."""
    position = start
    for part in range(parts):
        if part:
            position = _skip(text, position, rb"\s*\.\s*")
        position = _skip(text, position, _QUOTED_NAME if text[position : position + 1] == b'"' else _BARE_NAME)
    return position


def call_end(text: bytes, start: int) -> int:
    """Where the call of a function ends that begins at `start`."""
    depth = 0
    for offset, kind in duckdb.tokenize(text[start:].decode()):
        if kind != duckdb.token_type.operator:
            continue
        sign = text[start + offset : start + offset + 1]
        depth += {b"(": 1, b")": -1}.get(sign, 0)
        if sign == b")" and depth == 0:
            return start + offset + 1
    return len(text)


def _skip(text: bytes, position: int, pattern: bytes | re.Pattern[bytes]) -> int:
    found = re.compile(pattern).match(text, position)
    return found.end() if found else position


def without_comments(token: bytes) -> bytes:
    """A token without the comments that follow it."""
    if token[:1] in (b"'", b'"', b"$") or token[:2].lower() in (b"e'", b"x'"):
        closing = token.rfind(token[:1]) if token[:1] != b"$" else len(token)
        return token[: closing + 1]
    return re.sub(rb"--.*|/\*.*", b"", token, flags=re.DOTALL)


def _without_semicolon(sql: str) -> str:
    """The text with blanks for the semicolons at its end, so that every place stays where it is."""
    text = bytearray(sql.encode())
    for start, _ in reversed(duckdb.tokenize(sql)):
        if text[start : start + 1] != b";":
            break
        text[start : start + 1] = b" "
    return text.decode()


def _refusal(statement: Statement, tree: Mapping[str, Any]) -> Problem:
    message = reworded(str(tree["error_message"]))
    if tree["error_type"] == "not implemented":
        return statement.problem(*_no_query(statement.sql))
    position = int(tree["position"]) if tree.get("position") is not None else None
    if _DASH_IN_NAME.search(statement.sql.encode()[: (position or 0) + 1]):
        message += ': a name with "-" needs double quotes'
    if position is not None and message.startswith("syntax error"):
        message += misspelt_keyword(statement.sql, position)
    return statement.problem(message, position)


_DASH_IN_NAME: Final = re.compile(rb"-\Z|\w-\w+\.\Z")
"""What ends where a name with a dash is none: at the dash, or at the dot behind what was taken for a column."""


def _no_query(sql: str) -> tuple[str, int]:
    """What is wrong with a statement that is no query, and where it begins."""
    text = sql.encode()
    words = [(_word(text, start), start) for start, _ in duckdb.tokenize(sql)]
    name, start = words[0]
    if name == "WITH":
        name, start = next(((word, place) for word, place in words if word in _CHANGES), words[0])
    if name in ("SELECT", "WITH", "FROM", "VALUES", "PIVOT", ""):
        return "a PIVOT needs to say its columns here: `pivot t on kind in ('a', 'b') using sum(n)`", start
    return f"{name} is no query: a file of SQL is one SELECT, and the rows that it gives are what counts", start


def _word(text: bytes, start: int) -> str:
    """The word that begins at a byte, in upper case; nothing if there is none."""
    word = re.match(rb"\w*", text[start:])
    return word[0].decode().upper() if word else ""


_CHANGES: Final = ("INSERT", "UPDATE", "DELETE", "MERGE")
"""The statements that may begin with WITH and are no query."""


def _second(sql: str) -> int | None:
    """Where the second statement begins."""
    text = sql.encode()
    starts = [start for start, _ in duckdb.tokenize(sql)]
    has_ended = False
    for start in starts:
        is_end = text[start : start + 1] == b";"
        if has_ended and not is_end:
            return start
        has_ended = has_ended or is_end
    return None


def identifier(name: str) -> str:
    """A name as SQL writes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def string(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
