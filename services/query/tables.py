"""What the metadata of Iceberg tables and views says: columns, rows, bytes, and the query of a view."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from shared.errors import NotFound
from shared.lakehouse.views import current_version, query_of
from shared.object_store import ObjectStore

log = structlog.get_logger()

_KEPT: Final = 2000
"""Metadata files whose facts are remembered: a file never changes."""
_AT_ONCE: Final = 16

_TYPES: Final = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "timestamp_ns": "TIMESTAMP_NS",
    "timestamptz_ns": "TIMESTAMP WITH TIME ZONE",
    "string": "VARCHAR",
    "uuid": "UUID",
    "binary": "BLOB",
    "variant": "VARIANT",
    "geometry": "GEOMETRY",
}
_NOT_UNDERSTOOD: Final = (ValueError, LookupError, TypeError, AttributeError, StopIteration)
"""What reading metadata ends with that is not as the specification says."""


@dataclass(frozen=True)
class FoundColumn:
    """A column as the table has it, its type as DuckDB writes it."""

    name: str
    type: str
    is_nullable: bool
    unknown_type: str | None = None
    """What DuckDB has no type for, in Iceberg's words; it stands in the type as it is."""


@dataclass(frozen=True)
class Facts:
    """What the metadata file of a table or a view says about its current state."""

    columns: tuple[FoundColumn, ...]
    row_count: int
    size_bytes: int
    updated_at: datetime | None
    is_view: bool = False
    """A view has no rows and no bytes of its own."""
    query: str | None = None
    """What a view stands for; None for one that some other engine made, in an SQL of its own."""
    unreadable: str | None = None
    """Why nothing is known of it: its metadata is gone, or not as the specification says."""

    @property
    def problem(self) -> str | None:
        """What cannot be read of it, as some other engine made it so."""
        unknown = [f"column {one.name!r} is {one.unknown_type}" for one in self.columns if one.unknown_type]
        return self.unreadable or (f"DuckDB has no such type: {', '.join(unknown)}" if unknown else None)


class TableFacts:
    """Reads metadata files, each one once."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._prefix = f"s3://{bucket}/"
        self._kept: OrderedDict[str, Facts] = OrderedDict()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def of_all(self, locations: Iterable[str]) -> list[Facts]:
        """Read the metadata at these locations, in their order."""
        return list(await asyncio.gather(*(self.of(location) for location in locations)))

    async def of(self, location: str) -> Facts:
        """Read the metadata at a location."""
        if location in self._kept:
            self._kept.move_to_end(location)
            return self._kept[location]
        try:
            async with self._turns:
                content = await self._objects.get(location.removeprefix(self._prefix))
        except NotFound:
            # Others who ask for the same page get theirs.
            return _unreadable(f"its metadata is gone: {location}")
        try:
            facts = facts_of(json.loads(content))
        except _NOT_UNDERSTOOD as error:
            log.warning("metadata cannot be understood", location=location, error=repr(error))
            facts = _unreadable(f"its metadata cannot be understood: {location}")
        self._kept[location] = facts
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return facts


def facts_of(metadata: dict[str, Any]) -> Facts:
    """Read the facts from metadata as Iceberg's specification lays it out: of a table (versions 1 to 3), or a view."""
    if "view-uuid" in metadata:
        return _view_facts(metadata)
    schemas = metadata.get("schemas") or [metadata["schema"]]
    summary = _summary(metadata)
    return Facts(
        columns=_columns(schemas, metadata.get("current-schema-id", schemas[0].get("schema-id"))),
        row_count=int(summary.get("total-records", 0)),
        size_bytes=int(summary.get("total-files-size", 0)),
        updated_at=datetime.fromtimestamp(metadata["last-updated-ms"] / 1000, UTC),
    )


def _unreadable(why: str) -> Facts:
    return Facts(columns=(), row_count=0, size_bytes=0, updated_at=None, unreadable=why)


def _view_facts(metadata: dict[str, Any]) -> Facts:
    version = current_version(metadata)
    return Facts(
        columns=_columns(metadata["schemas"], version["schema-id"]),
        row_count=0,
        size_bytes=0,
        updated_at=datetime.fromtimestamp(version["timestamp-ms"] / 1000, UTC),
        is_view=True,
        query=query_of(metadata),
    )


def _columns(schemas: list[dict[str, Any]], current: int | None) -> tuple[FoundColumn, ...]:
    schema = next(schema for schema in schemas if schema.get("schema-id") == current)
    return tuple(
        FoundColumn(
            field["name"],
            type_name(field["type"]),
            not field["required"],
            unknown_type=next(_unknown(field["type"]), None),
        )
        for field in schema["fields"]
    )


def _unknown(kind: Any) -> Iterator[str]:
    """The types in a type that DuckDB does not have."""
    match kind:
        case {"type": "struct", "fields": fields}:
            yield from (name for field in fields for name in _unknown(field["type"]))
        case {"type": "list", "element": element}:
            yield from _unknown(element)
        case {"type": "map", "key": key, "value": value}:
            yield from (*_unknown(key), *_unknown(value))
        case _ if type_name(kind) == str(kind):
            yield str(kind)


def _summary(metadata: dict[str, Any]) -> dict[str, str]:
    for snapshot in metadata.get("snapshots") or []:
        if snapshot["snapshot-id"] == metadata.get("current-snapshot-id"):
            summary: dict[str, str] = snapshot["summary"]
            return summary
    return {}


def type_name(kind: Any) -> str:
    """An Iceberg type as DuckDB writes it; one that DuckDB does not have stays as Iceberg writes it."""
    match kind:
        case {"type": "struct", "fields": fields}:
            inner = ", ".join(f"{_quoted(field['name'])} {type_name(field['type'])}" for field in fields)
            return f"STRUCT({inner})"
        case {"type": "list", "element": element}:
            return f"{type_name(element)}[]"
        case {"type": "map", "key": key, "value": value}:
            return f"MAP({type_name(key)}, {type_name(value)})"
        case str() if kind in _TYPES:
            return _TYPES[kind]
        case str() if kind.startswith("decimal"):
            precision, scale = kind.removeprefix("decimal(").removesuffix(")").split(",")
            return f"DECIMAL({int(precision)},{int(scale)})"
        case str() if kind.startswith("fixed"):
            return "BLOB"
        case str() if kind.startswith("geometry("):
            return "GEOMETRY"
    return str(kind)


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name.islower() else '"' + name.replace('"', '""') + '"'
