"""What DuckDB's own parser makes of an SQL text."""

import json
import sys
from typing import Any, Final

import duckdb

_DEEPEST: Final = 10_000
"""Python gives up at 1000, and DuckDB lets expressions be as deep, each of which is two or three levels of JSON."""


def tree_of(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """The parse tree of a SELECT, or of several, as `json_serialize_sql` gives it; `error` is true for all else.

    `duckdb.Error` for a text with the character NUL. A tree may be deep: walk it without recursion.
    """
    literal = "'" + sql.replace("'", "''") + "'"
    # A parameter would do as well, but DuckDB's Python client then imports pandas, to look whether it is of its kind.
    answer = connection.execute(f"select json_serialize_sql({literal})").fetchone()
    assert answer is not None, "one row for one text"
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(_DEEPEST)
    try:
        tree: dict[str, Any] = json.loads(answer[0])
    finally:
        sys.setrecursionlimit(usual)
    return tree
