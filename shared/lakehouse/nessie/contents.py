"""What is in Nessie under the names of tables and views, at a reference, and the operations that change it."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from contracts.names import Qualified
from shared.errors import Conflict, NotFound
from shared.lakehouse.nessie.api import Json, NessieApi, Refused, segment
from shared.lakehouse.nessie.names import closed_name, is_hash, is_name, merged_name
from shared.lakehouse.port import BEGINNING, MAIN, MetadataFile, Relation, RelationKind, ViewFile

T = TypeVar("T")

_KINDS: Final = {"ICEBERG_TABLE": RelationKind.TABLE, "ICEBERG_VIEW": RelationKind.VIEW}
"""Nessie's types of content → what a name of that content stands for."""
_BEGINNING: Final = segment(MAIN, at=BEGINNING)
_SEEN: Final = 1000
"""Contents of branches that are remembered: what was looked at is mostly moved soon after."""


class Contents:
    """Tables and views, on main, on branches and as they were."""

    def __init__(self, api: NessieApi) -> None:
        self._api = api
        self._seen: OrderedDict[tuple[str, Qualified], tuple[str, Json | None]] = OrderedDict()
        """What a branch held under a name when it was looked at last, and the hash of the commit at which it did."""

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Which tables and views there are at a reference, by name."""
        return await self._read(at, self._relations)

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """What a name stands for at a reference; None where it stands for nothing."""
        return await self._read(at, lambda path: self._relation(name, path))

    async def move(
        self, branch: str, name: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Put new metadata, or nothing, in the place of what an open branch has under a name; `Conflict` if it has not.

        Nessie does not look into the metadata.
        """
        # Where it has moved since it was seen, the commit is refused: it is one at the hash of then.
        at, content = self._seen.pop((segment(branch), name), ("", None))
        if not at or _location(content) != expected:
            at, content = await self._content(segment(branch), name)
        if _location(content) != expected:
            raise Conflict(f"{str(name)!r} on {branch!r} is at {_location(content)}, not at {expected}")
        if content is not None and new is not None and content["type"] != _content_of(new)["type"]:
            # What stands for a table cannot stand for a view by one commit.
            await self._api.commit(branch, at, f"drop {name}", [_change(name, content, None)])
            at, content = await self._content(segment(branch), name)
        await self._api.commit(branch, at, f"write {name}", [_change(name, content, new)])

    async def changed(self, path: str, since: str) -> set[Qualified]:
        """The tables and views that are not what they were at a snapshot, at what this part of a path names."""
        return {
            Qualified(*difference["key"]["elements"])
            async for page in self._api.pages(f"/trees/{path}/diff/{segment(MAIN, at=since)}", "diffs")
            for difference in page
            if is_relation(difference["key"])
        }

    async def _read(self, at: str, read: Callable[[str], Awaitable[T]]) -> T:
        """Read at a reference, by the first of its possible names that there is."""
        for path in _paths(at):
            try:
                return await read(path)
            except Refused as refused:
                if not refused.is_missing_reference:
                    raise
        raise NotFound(f"no snapshot {at!r}" if is_hash(at) else f"no branch or snapshot {at!r}")

    async def _relations(self, path: str) -> dict[Qualified, Relation]:
        if path == _BEGINNING:
            return {}
        return {
            Qualified(*entry["name"]["elements"]): relation_of(entry["content"])
            async for page in self._api.pages(f"/trees/{path}/entries", "entries", content="true")
            for entry in page
            if entry["type"] in _KINDS
        }

    async def _relation(self, name: Qualified, path: str) -> Relation | None:
        if path == _BEGINNING:
            return None
        found = await self._content(path, name)
        if path.partition("@")[0] != MAIN:
            self._seen[path, name] = found
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
        _, content = found
        return None if content is None else relation_of(content)

    async def _content(self, path: str, name: Qualified) -> tuple[str, Json | None]:
        """What the reference of a path holds under a name now, and the hash of the commit at which it does."""
        body = {"requestedKeys": [{"elements": list(name)}]}
        answer = await self._api.ask("POST", f"/trees/{path}/contents", body=body, query={})
        contents = answer["contents"]
        return answer["effectiveReference"]["hash"], contents[0]["content"] if contents else None


def relation_of(content: Json) -> Relation:
    """The table or view that a content is."""
    return Relation(_KINDS[content["type"]], content["metadataLocation"])


def _location(content: Json | None) -> str | None:
    return content["metadataLocation"] if content else None


def is_relation(key: Json) -> bool:
    """Whether a key has as many levels as the name of a table or view."""
    return len(key["elements"]) == len(Qualified._fields)


def _paths(at: str) -> list[str]:
    """What a reference may be called, as parts of a path, by turns."""
    if at == MAIN:
        return [MAIN]
    if at == BEGINNING or is_hash(at):
        return [segment(MAIN, at=at)]
    if not is_name(at):
        return []
    return [segment(name) for name in (at, closed_name(at), merged_name(at))]


def _change(name: Qualified, content: Json | None, new: MetadataFile | ViewFile | None) -> Json:
    """The operation that makes a table or view of a branch, which has this content now, what it shall be."""
    key = {"elements": list(name)}
    if new is None:
        return {"type": "DELETE", "key": key}
    made = _content_of(new)
    # The same id says that it is the same table; without one, it is a new one.
    return {"type": "PUT", "key": key, "content": made if content is None else made | {"id": content["id"]}}


def _content_of(new: MetadataFile | ViewFile) -> Json:
    match new:
        case MetadataFile():
            return {
                "type": "ICEBERG_TABLE",
                "metadataLocation": new.location,
                "snapshotId": -1 if new.snapshot_id is None else new.snapshot_id,
                "schemaId": new.schema_id,
                "specId": new.spec_id,
                "sortOrderId": new.sort_order_id,
            }
        case ViewFile():
            return {
                "type": "ICEBERG_VIEW",
                "metadataLocation": new.location,
                "versionId": new.version_id,
                "schemaId": new.schema_id,
            }
