"""Views as they are read: the query that one stands for, and in which order views on views are put together.

A view names tables and other views; what they are is found out whenever it is read, all at one reference.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from contracts.names import Qualified
from shared.errors import Invalid

DIALECT: Final = "duckdb"


def current_version(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The version of a view that holds, from its metadata as Iceberg's specification lays it out."""
    current = metadata["current-version-id"]
    version: Mapping[str, Any] = next(one for one in metadata["versions"] if one["version-id"] == current)
    return version


def query_of(metadata: Mapping[str, Any]) -> str | None:
    """The query of a view, from its metadata; None where it is not told in DuckDB's SQL."""
    representations = current_version(metadata)["representations"]
    told: list[str] = [one["sql"] for one in representations if one["dialect"].lower() == DIALECT]
    return told[0] if told else None


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
