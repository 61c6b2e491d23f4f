"""The log of merges: those of main's commits that say in their properties which branch was merged."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from contracts.names import Qualified
from shared.errors import Invalid, Unavailable
from shared.lakehouse.nessie.api import Json, NessieApi, literal, segment, time_of
from shared.lakehouse.nessie.contents import is_relation, relation_of
from shared.lakehouse.nessie.names import is_hash
from shared.lakehouse.port import BEGINNING, MAIN, Merged, Relation

_BRANCH: Final = "rat.branch"
_RUN_ID: Final = "run_id"
_ATTEMPT: Final = "attempt"

_IS_MERGE: Final = f"{literal(_BRANCH)} in commit.properties"


class Log:
    """Read newest first, both ends included."""

    def __init__(self, api: NessieApi) -> None:
        self._api = api

    async def all(self) -> AsyncIterator[tuple[Merged, list[Relation]]]:
        """Every merge, with the tables and views that it put on main."""
        async for entry in self._commits(_IS_MERGE):
            yield _merged(entry), [relation for relation in _changes(entry).values() if relation is not None]

    async def of(self, table: Qualified, *, newest: str | None) -> AsyncIterator[Merged]:
        """The merges that changed a table or view."""
        wanted = f"{_IS_MERGE} && operations.exists(op, op.key == {literal(str(table))})"
        async for entry in self._commits(wanted, newest=newest):
            yield _merged(entry)

    async def at(self, snapshot: str) -> Merged:
        """The merge that a snapshot is of, and which Nessie has just told of."""
        newest = await self._api.get(
            f"/trees/{segment(MAIN, at=snapshot)}/history", fetch="ALL", **{"max-records": "1"}
        )
        for entry in newest["logEntries"]:
            return _merged(entry)
        raise Unavailable(f"Nessie's log does not have {snapshot!r}, which it answered")

    async def of_run(self, run_id: UUID, since: str) -> Merged | None:
        """The merge of a run after a snapshot."""
        return await self._find(_RUN_ID, str(run_id), since)

    async def of_branch(self, branch: str, since: str) -> Merged | None:
        """The merge of a branch after a snapshot."""
        return await self._find(_BRANCH, branch, since)

    async def _find(self, name: str, value: str, since: str) -> Merged | None:
        wanted = f"{literal(name)} in commit.properties && commit.properties[{literal(name)}] == {literal(value)}"
        # Nessie looks for the end only among the commits that are wanted: without it, it would go through all of them.
        async for entry in self._commits(f"commit.hash == {literal(since)} || ({wanted})", oldest=since):
            merged = _merged(entry)
            if merged.snapshot != since:
                return merged
        return None

    async def _commits(self, wanted: str, *, newest: str | None = None, oldest: str = BEGINNING) -> AsyncIterator[Json]:
        query = {"fetch": "ALL", "filter": wanted}
        if oldest != BEGINNING:
            query["limit-hash"] = _snapshot(oldest)
        path = f"/trees/{segment(MAIN, at=_snapshot(newest) if newest else '')}/history"
        async for page in self._api.pages(path, "logEntries", **query):
            for entry in page:
                yield entry


def properties(branch: str, run_id: UUID | None, attempt: int | None) -> dict[str, str]:
    """What the commit of a merge says of itself."""
    said = {_BRANCH: branch, _RUN_ID: run_id, _ATTEMPT: attempt}
    return {name: str(value) for name, value in said.items() if value is not None}


def _merged(entry: Json) -> Merged:
    commit = entry["commitMeta"]
    said = {name: values[0] for name, values in (commit.get("allProperties") or {}).items()}
    run_id, attempt = said.get(_RUN_ID), said.get(_ATTEMPT)
    return Merged(
        snapshot=commit["hash"],
        at=time_of(commit),
        run_id=UUID(run_id) if run_id else None,
        attempt=int(attempt) if attempt else None,
        tables={name: found.location if found is not None else None for name, found in sorted(_changes(entry).items())},
    )


def _changes(entry: Json) -> dict[Qualified, Relation | None]:
    """What a commit has put where; None where something was dropped."""
    return {
        Qualified(*operation["key"]["elements"]): (
            relation_of(operation["content"]) if operation["type"] == "PUT" else None
        )
        for operation in entry.get("operations") or []
        if is_relation(operation["key"])
    }


def _snapshot(text: str) -> str:
    if not is_hash(text):
        raise Invalid(f"{text!r} is not a snapshot")
    return text
