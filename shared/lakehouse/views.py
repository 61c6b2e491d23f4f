"""Views as they are read: the query that one stands for, and in which order views on views are put together.

A view names tables and other views; what they are is found out whenever it is read, all at one reference.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from contracts.names import Qualified
from shared.errors import Invalid

DIALECT: Final = "duckdb"


def query_of(view: Qualified, metadata: Mapping[str, Any]) -> str:
    """The query of a view, from its metadata as Iceberg's specification lays it out.

    `Invalid` for a view that some other engine made, and that is not told in DuckDB's SQL.
    """
    current = metadata["current-version-id"]
    version = next(version for version in metadata["versions"] if version["version-id"] == current)
    for representation in version["representations"]:
        if representation["dialect"].lower() == DIALECT:
            sql: str = representation["sql"]
            return sql
    dialects = ", ".join(sorted(representation["dialect"] for representation in version["representations"]))
    raise Invalid(f"view {view} is told in the SQL of {dialects}, not in that of {DIALECT}")


def in_order(views: Mapping[Qualified, Collection[Qualified]]) -> list[Qualified]:
    """The views, given what each of them reads, so that each comes after those that it reads.

    `Invalid` names the way from a view back to itself.
    """
    ordered: dict[Qualified, None] = {}

    def take(view: Qualified, path: tuple[Qualified, ...]) -> None:
        if view in path:
            way = " → ".join(str(one) for one in (*path[path.index(view) :], view))
            raise Invalid(f"view {view} reads itself: {way}")
        if view in ordered:
            return
        for read in sorted(views[view]):
            if read in views:
                take(read, (*path, view))
        ordered[view] = None

    for view in sorted(views):
        take(view, ())
    return list(ordered)
