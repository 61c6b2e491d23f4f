"""The lakehouse of the distributed stack: branches, contents and the log of merges in Project Nessie.

A branch of the port is one of Nessie's. Closing it makes `failed-<run>-<n>` at its head and then deletes
`run-<run>-<n>` by its hash, so that a commit that comes between is either closed with it or refused. A merge is found
in main's log by the properties of its commit. Nothing is ever forced.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from contracts.names import Qualified
from shared.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unavailable
from shared.lakehouse.nessie_api import Json, NessieApi, Refused, literal, segment, session
from shared.lakehouse.nessie_names import branch_of, check_name, closed_name, is_hash, is_name, merged_name, prefixes
from shared.lakehouse.port import (
    BEGINNING,
    MAIN,
    Branch,
    BranchClosed,
    MergeConflict,
    Merged,
    MetadataFile,
    Relation,
    RelationKind,
    TableChange,
    ViewFile,
    tables_among,
)
from shared.settings import Settings

MERGER: Final = "merge"
"""The role with whose token the runner moves main: no process that runs an author's code has it."""

_AT_ONCE: Final = 8
_FIRST_NAMESPACE: Final = "default"
_BRANCH: Final = "rat.branch"
"""The property of every merge's commit: the branch that was merged."""
_RUN_ID: Final = "run_id"
_ATTEMPT: Final = "attempt"
_CLOSED: Final = "rat.closed"
"""The property of the commit that says when a branch was closed; it changes nothing."""
_KINDS: Final = {"ICEBERG_TABLE": RelationKind.TABLE, "ICEBERG_VIEW": RelationKind.VIEW}
"""Nessie's types of content → what a name of that content stands for."""


@asynccontextmanager
async def nessie_lakehouse(settings: Settings, role: str) -> AsyncIterator["NessieLakehouse"]:
    """Use Nessie as a role; the runner's also moves main, if this process has the token for it."""
    async with session(settings.nessie_token(role), ca_file=settings.nessie_ca_file) as connections:
        may_merge = role == "runner" and MERGER in settings.nessie_tokens
        yield NessieLakehouse(
            NessieApi(connections, settings.nessie_url, settings.nessie_page_size),
            merge_token=settings.nessie_token(MERGER) if may_merge else None,
            merges_settle_within=2 * timedelta(seconds=settings.nessie_commit_timeout_seconds),
        )


class NessieLakehouse:
    """Implements `shared.lakehouse.port.Lakehouse`."""

    def __init__(self, api: NessieApi, *, merge_token: str | None, merges_settle_within: timedelta) -> None:
        self._api = api
        self._merge_token = merge_token
        self._ensured: set[tuple[str, str]] = set()
        self.merges_settle_within = merges_settle_within

    async def set_up(self) -> None:
        """Give an empty main its first commit: without one, no branch would have anything in common with it."""
        with _translated():
            await self._add_namespaces([(_FIRST_NAMESPACE,)])

    async def head(self) -> str:
        """Name main's newest snapshot."""
        with _translated():
            return await self._main()

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Make sure that tables can be created in `namespace.layer`, on every branch that is made from now on."""
        if (namespace, layer) in self._ensured:
            # None ever goes.
            return
        with _translated():
            await self._add_namespaces([(namespace,), (namespace, layer)])
        self._ensured.add((namespace, layer))

    async def create_branch(self, name: str) -> str:
        """Make a branch from main and give the snapshot that it starts from."""
        if name == MAIN:
            raise AlreadyExists(f"there is a branch {name!r} already")
        check_name(name)
        with _translated():
            base = await self._main()
            await self._make(name, base)
            # Whoever closes a name makes the closed one first and looks for the open one then: one sees the other.
            if await self._closed_references(name):
                await self._delete(name)
                raise BranchClosed(f"branch {name!r} is closed")
        return base

    async def close_branch(self, name: str) -> None:
        """See to it that a branch of this name is not committed to or merged any more; it stays readable."""
        _refuse_main(name)
        with _translated():
            while not await self._has_closed(name):
                pass

    async def delete_branch(self, name: str) -> None:
        """Forget a branch, whatever its state; missing is fine."""
        _refuse_main(name)
        with _translated():
            for reference in (name, closed_name(name), merged_name(name)):
                await self._delete(reference)

    async def branches(self, prefix: str = "") -> list[Branch]:
        """List the branches whose names start so, by name, without main."""
        with _translated():
            names = [name for name in await self._names(prefix) if branch_of(name)[0].startswith(prefix)]
            found = await self._references(names)
        known: dict[str, Branch] = {}
        for branch in map(_branch, found):
            # While a branch is being closed it has both names; it is open until it has lost the first.
            if branch.name not in known or branch.closed_at is None:
                known[branch.name] = branch
        return sorted(known.values(), key=lambda branch: branch.name)

    async def is_closed(self, name: str) -> bool:
        """Whether a branch was closed or merged."""
        with _translated():
            if await self._reference(name) is not None:
                return False
            if await self._closed_references(name):
                return True
        raise _no_branch(name)

    async def sweep_branches(self, closed_for: timedelta) -> list[str]:
        """Delete the branches that were closed longer ago than this, and say which."""
        until = datetime.now(UTC) - closed_for
        swept = set()
        with _translated():
            names = [name for name in await self._names("") if branch_of(name)[1]]
            for reference in await self._references(names):
                branch = branch_of(reference["name"])[0]
                closed_at = _closed_at(reference)
                if closed_at is None:
                    # Whoever was closing it did not come to its end; its time starts now.
                    await self.close_branch(branch)
                elif closed_at <= until:
                    await self._delete(reference["name"])
                    swept.add(branch)
        return sorted(swept)

    async def drop_table(self, branch: str, table: Qualified) -> None:
        """Take a table or a view off a branch, and with the merge off main; its files stay."""
        found = await self.relation(table, branch)
        if found is None:
            raise NotFound(f"no table {str(table)!r} on {branch!r}")
        await self.commit(branch, table, found.location, None)

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move a table or view on a branch from one metadata file to the next, which Nessie does not look into."""
        if branch == MAIN:
            raise Forbidden(f"{str(table)!r} on main changes by merges only")
        with _translated():
            try:
                at, content = await self._content(branch, table)
                found = content["metadataLocation"] if content else None
                if found != expected:
                    raise Conflict(f"{str(table)!r} on {branch!r} is at {found}, not at {expected}")
                if content is not None and new is not None and content["type"] != _content_of(new)["type"]:
                    # What stands for a table cannot stand for a view by one commit.
                    await self._commit(branch, at, f"drop {table}", [_change(table, content, None)])
                    at, content = await self._content(branch, table)
                await self._commit(branch, at, f"write {table}", [_change(table, content, new)])
            except Refused as refused:
                if refused.is_missing_reference:
                    raise await self._gone(branch) from refused
                raise Conflict(f"{str(table)!r} on {branch!r} was not changed: {refused.message}") from refused

    async def merge(
        self, branch: str, run_id: UUID | None, attempt: int | None, since: str = BEGINNING
    ) -> Merged | None:
        """Put all tables that a branch changed on main at once, or none, and close the branch."""
        _refuse_main(branch)
        if self._merge_token is None:
            raise Forbidden("this role may not move main: it has no token of the role 'merge'")
        with _translated():
            earlier, reference = await asyncio.gather(
                self._find_run(run_id, since), self._reference(branch, with_metadata=True)
            )
            if earlier is not None:
                return earlier
            if reference is None:
                raise await self._gone(branch)
            try:
                changed = await self._changed_tables(segment(branch, at=reference["hash"]), _base(reference))
                if not changed:
                    return None
                merged_at = await self._merge(branch, reference, changed, _properties(branch, run_id, attempt))
            except Refused as refused:
                if not refused.is_missing_reference:
                    raise
                raise await self._gone(branch) from refused
            merged, _ = await asyncio.gather(self._entry(merged_at), self._close_merged(branch, reference, merged_at))
            return merged

    async def find_merge(self, run_id: UUID, since: str) -> Merged | None:
        """Look for the merge of a run in the log after a snapshot."""
        with _translated():
            return await self._find(_RUN_ID, str(run_id), since)

    async def history(self, table: Qualified, limit: int, before: str | None = None) -> list[TableChange]:
        """List the changes of a table or view on main, newest first, from before a snapshot if one is given."""
        changes: list[TableChange] = []
        wanted = f"'{_BRANCH}' in commit.properties && operations.exists(op, op.key == {literal(str(table))})"
        with _translated():
            async for entry in self._log(wanted, newest=before):
                merged = _merged(entry)
                if merged.snapshot == before:
                    continue
                changes.append(
                    TableChange(merged.snapshot, merged.at, merged.run_id, merged.attempt, merged.tables[table])
                )
                if len(changes) >= limit:
                    break
        return changes[:limit]

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Say which tables and views there are at a reference, by name."""
        with _translated():
            for reference in self._candidates(at):
                try:
                    return await self._relations(reference)
                except Refused as refused:
                    if not refused.is_missing_reference:
                        raise
        raise _no_reference(at)

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for at a reference; None where it stands for nothing."""
        with _translated():
            for reference in self._candidates(at):
                try:
                    return await self._relation_at(name, reference)
                except Refused as refused:
                    if not refused.is_missing_reference:
                        raise
        raise _no_reference(at)

    async def tables(self, at: str = MAIN) -> dict[Qualified, str]:
        """Say which tables there are at a reference, without views, and where the metadata of each is."""
        return tables_among(await self.relations(at))

    async def location(self, table: Qualified, at: str = MAIN) -> str | None:
        """Say where a table's metadata is at a reference; None where there is no such table, or a view is."""
        found = await self.relation(table, at)
        return found.location if found is not None and found.kind is RelationKind.TABLE else None

    async def live_metadata(self) -> set[Relation]:
        """List all tables and views that are on main now, or on any branch, open or closed."""
        with _translated():
            names = await self._names("")
        places = asyncio.Semaphore(_AT_ONCE)

        async def on(name: str) -> set[Relation]:
            async with places:
                # Swept, or closed, since it was listed; it goes on under another name then.
                with suppress(NotFound):
                    return set((await self.relations(branch_of(name)[0])).values())
            return set()

        found = await asyncio.gather(*(on(name) for name in names))
        # Main last: what is merged meanwhile is seen there.
        return set((await self.relations()).values()).union(*found)

    async def past_metadata(self, since: datetime | None) -> set[Relation]:
        """List all tables and views of all entries of the log, back to a time if one is given."""
        past: set[Relation] = set()
        oldest = None
        with _translated():
            async for entry in self._log(f"'{_BRANCH}' in commit.properties"):
                merged = _merged(entry)
                if since is not None and merged.at < since:
                    # The oldest entry shows what earlier ones brought and nobody has changed by then.
                    return past | set((await self.relations(oldest or MAIN)).values())
                oldest = merged.snapshot
                past |= {relation for relation in _changes(entry).values() if relation is not None}
        return past

    # Namespaces

    async def namespaces(self) -> set[str]:
        """List the namespaces of tables on main, with dots between their levels: `ns` and `ns.layer`."""
        with _translated():
            return {
                ".".join(entry["name"]["elements"])
                async for page in self._api.pages(f"/trees/{MAIN}/entries", "entries")
                for entry in page
                if entry["type"] == "NAMESPACE"
            }

    async def _add_namespaces(self, names: list[tuple[str, ...]]) -> None:
        while missing := await self._missing_namespaces(names):
            operations = [
                {
                    "type": "PUT",
                    "key": {"elements": list(name)},
                    "content": {"type": "NAMESPACE", "elements": list(name)},
                }
                for name in missing
            ]
            message = f"namespace {'.'.join(missing[-1])}"
            try:
                await self._commit(MAIN, await self._main(), message, operations, token=self._merge_token)
            except Refused as refused:
                # Somebody else was faster: it says 400 where the namespace exists at the hash, 409 where it came since.
                if refused.status not in (400, 409) or await self._missing_namespaces(missing) == missing:
                    raise

    async def _missing_namespaces(self, names: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        body = {"requestedKeys": [{"elements": list(name)} for name in names]}
        answer = await self._api.ask("POST", f"/trees/{MAIN}/contents", body=body, query={})
        known = {tuple(content["key"]["elements"]) for content in answer["contents"]}
        return [name for name in names if name not in known]

    # References

    async def _main(self) -> str:
        answer = await self._api.get(f"/trees/{MAIN}")
        head: str = answer["reference"]["hash"]
        return head

    async def _reference(self, name: str, *, with_metadata: bool = False) -> Json | None:
        try:
            query = {"fetch": "ALL"} if with_metadata else {}
            answer = await self._api.get(f"/trees/{segment(name)}", **query)
        except Refused as refused:
            if refused.is_missing_reference:
                return None
            raise
        reference: Json = answer["reference"]
        return reference

    async def _open(self, branch: str) -> Json:
        """The reference of a branch, with its metadata; raises where it is closed or was never made."""
        reference = await self._reference(branch, with_metadata=True)
        if reference is None:
            raise await self._gone(branch)
        return reference

    async def _gone(self, branch: str) -> BranchClosed | NotFound:
        if await self._closed_references(branch):
            return BranchClosed(f"branch {branch!r} is closed")
        return _no_branch(branch)

    async def _closed_references(self, branch: str) -> list[Json]:
        return await self._references([merged_name(branch), closed_name(branch)])

    async def _references(self, names: Iterable[str]) -> list[Json]:
        """The references of these names with their metadata, without those that are gone."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def reference(name: str) -> Json | None:
            async with places:
                return await self._reference(name, with_metadata=True)

        found = await asyncio.gather(*(reference(name) for name in names))
        return [one for one in found if one is not None]

    async def _names(self, prefix: str) -> list[str]:
        """The names of all references that may be branches whose names start so."""
        wanted = " || ".join(f"ref.name.startsWith({literal(one)})" for one in prefixes(prefix))
        return [
            reference["name"]
            async for page in self._api.pages("/trees", "references", filter=wanted)
            for reference in page
            if reference["name"] != MAIN and reference["type"] == "BRANCH"
        ]

    async def _make(self, name: str, at: str) -> None:
        body = {"type": "BRANCH", "name": MAIN, "hash": at}
        try:
            await self._api.ask("POST", "/trees", body=body, query={"name": name, "type": "BRANCH"})
        except Refused as refused:
            if refused.code != "REFERENCE_ALREADY_EXISTS":
                raise
            raise AlreadyExists(f"there is a branch {name!r} already") from refused

    async def _delete(self, name: str) -> None:
        """Delete a reference wherever it is."""
        while (reference := await self._reference(name)) is not None and not await self._deleted(name, reference):
            pass

    async def _deleted(self, name: str, reference: Json) -> bool:
        """Delete a reference where it was seen; False if it has moved since."""
        try:
            path = f"/trees/{segment(name, at=reference['hash'])}"
            await self._api.ask("DELETE", path, query={"type": "BRANCH"})
        except Refused as refused:
            if refused.is_missing_reference:
                return True
            if refused.code != "REFERENCE_CONFLICT":
                raise
            return False
        return True

    # Closing

    async def _has_closed(self, name: str) -> bool:
        """Close a branch, from whatever state it is found in; False if somebody moved it meanwhile."""
        opened, closed = await asyncio.gather(self._reference(name), self._closed_references(name))
        if any(_closed_at(reference) is not None for reference in closed):
            # A branch beside it is of somebody who made it too late, or was just about to delete it.
            return opened is None or await self._deleted(name, opened)
        at = opened["hash"] if opened is not None else closed[0]["hash"] if closed else await self._main()
        if not await self._is_at(closed_name(name), closed[0] if closed else None, at):
            return False
        if opened is not None and not await self._deleted(name, opened):
            return False
        if opened is None and await self._reference(name) is not None:
            return False
        return await self._is_marked(closed_name(name), at)

    async def _is_at(self, name: str, reference: Json | None, at: str) -> bool:
        """Make a reference at a hash, or move it there; False if somebody else does so, too."""
        try:
            if reference is None:
                await self._make(name, at)
            elif reference["hash"] != at:
                body = {"type": "BRANCH", "name": MAIN, "hash": at}
                path = f"/trees/{segment(name, at=reference['hash'])}"
                await self._api.ask("PUT", path, body=body, query={"type": "BRANCH"})
        except AlreadyExists:
            return False
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            return False
        return True

    async def _is_marked(self, name: str, at: str) -> bool:
        """Note the time of the closing; False if somebody else did."""
        operation = {"type": "UNCHANGED", "key": {"elements": [_CLOSED]}}
        try:
            await self._commit(name, at, "close", [operation], properties={_CLOSED: "true"})
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            return False
        return True

    async def _close_merged(self, branch: str, reference: Json, at: str) -> None:
        """Let a branch go on under the name of a merged one, as main was right after the merge.

        It is merged, whatever becomes of this; who finds it on main closes the branch then.
        """
        with suppress(Refused, Unavailable):
            with suppress(AlreadyExists):
                await self._make(merged_name(branch), at)
            if not await self._deleted(branch, reference):
                await self._delete(branch)

    # Commits and merges

    async def _commit(
        self,
        branch: str,
        at: str,
        message: str,
        operations: list[Json],
        *,
        properties: dict[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        body = {"commitMeta": {"message": message, "properties": properties or {}}, "operations": operations}
        path = f"/trees/{segment(branch, at=at)}/history/commit"
        await self._api.ask("POST", path, token=token, body=body, query={})

    async def _changed_tables(self, reference: str, since: str) -> set[Qualified]:
        """The tables that are not what they were at a snapshot."""
        return {
            Qualified(*difference["key"]["elements"])
            async for page in self._api.pages(f"/trees/{reference}/diff/{segment(MAIN, at=since)}", "diffs")
            for difference in page
            if len(difference["key"]["elements"]) == len(Qualified._fields)
        }

    async def _merge(self, branch: str, reference: Json, changed: set[Qualified], properties: dict[str, str]) -> str:
        """Merge a branch that has changed these tables, and give the snapshot that came of it."""
        base = _base(reference)
        body = {
            "fromRefName": branch,
            "fromHash": reference["hash"],
            "commitMeta": {"message": f"merge {branch}", "properties": properties},
        }
        try:
            # The hash in the path only says which main is known; what counts is whether a table was changed on both.
            path = f"/trees/{segment(MAIN, at=base)}/history/merge"
            answer = await self._api.ask("POST", path, token=self._merge_token, body=body, query={})
        except Refused as refused:
            if refused.status != 409:
                raise
            # Nessie also names keys that are not in conflict.
            moved = changed & await self._changed_tables(MAIN, base)
            if not moved:
                raise Unavailable(f"Nessie did not merge {branch!r} now: {refused.message}") from refused
            raise MergeConflict(branch, tuple(sorted(moved))) from refused
        except Unavailable:
            # The answer is lost, not necessarily the merge.
            if merged := await self._find(_BRANCH, branch, base):
                return merged.snapshot
            raise
        if answer["wasApplied"]:
            snapshot: str = answer["resultantTargetHash"]
            return snapshot
        # Somebody else has merged it since it was looked at.
        if merged := await self._find(_BRANCH, branch, base):
            return merged.snapshot
        raise Unavailable(f"Nessie did not apply the merge of {branch!r}, and does not say why")

    # The log

    async def _find_run(self, run_id: UUID | None, since: str) -> Merged | None:
        return None if run_id is None else await self._find(_RUN_ID, str(run_id), since)

    async def _entry(self, snapshot: str) -> Merged:
        async for entry in self._log(None, newest=snapshot):
            return _merged(entry)
        raise Unavailable(f"Nessie's log does not have {snapshot!r}, which it answered")

    async def _find(self, name: str, value: str, since: str) -> Merged | None:
        wanted = f"{literal(name)} in commit.properties && commit.properties[{literal(name)}] == {literal(value)}"
        async for entry in self._log(wanted, oldest=since):
            merged = _merged(entry)
            if merged.snapshot != since:
                return merged
        return None

    async def _log(
        self, wanted: str | None, *, newest: str | None = None, oldest: str = BEGINNING
    ) -> AsyncIterator[Json]:
        """Main's commits, newest first, both ends included."""
        query = {"fetch": "ALL"}
        if wanted is not None:
            query["filter"] = wanted
        if oldest != BEGINNING:
            query["limit-hash"] = _snapshot(oldest)
        path = f"/trees/{segment(MAIN, at=_snapshot(newest) if newest else '')}/history"
        async for page in self._api.pages(path, "logEntries", **query):
            for entry in page:
                yield entry

    # Contents

    def _candidates(self, at: str) -> list[str]:
        """What a reference may be called, as parts of a path, by turns."""
        if at == MAIN:
            return [MAIN]
        if at == BEGINNING or is_hash(at):
            return [segment(MAIN, at=at)]
        if not is_name(at):
            return []
        return [segment(name) for name in (at, closed_name(at), merged_name(at))]

    async def _relations(self, reference: str) -> dict[Qualified, Relation]:
        if reference == segment(MAIN, at=BEGINNING):
            return {}
        return {
            Qualified(*entry["name"]["elements"]): _relation(entry["content"])
            async for page in self._api.pages(f"/trees/{reference}/entries", "entries", content="true")
            for entry in page
            if entry["type"] in _KINDS
        }

    async def _content(self, branch: str, table: Qualified) -> tuple[str, Json | None]:
        """What an open branch holds of a table now, and the hash of the commit at which it does."""
        body = {"requestedKeys": [{"elements": list(table)}]}
        answer = await self._api.ask("POST", f"/trees/{segment(branch)}/contents", body=body, query={})
        contents = answer["contents"]
        return answer["effectiveReference"]["hash"], contents[0]["content"] if contents else None

    async def _relation_at(self, name: Qualified, reference: str) -> Relation | None:
        if reference == segment(MAIN, at=BEGINNING):
            return None
        try:
            answer = await self._api.get(f"/trees/{reference}/contents/{name}")
        except Refused as refused:
            if refused.code != "CONTENT_NOT_FOUND":
                raise
            return None
        return _relation(answer["content"])


def _relation(content: Json) -> Relation:
    return Relation(_KINDS[content["type"]], content["metadataLocation"])


def _branch(reference: Json) -> Branch:
    name, is_closed = branch_of(reference["name"])
    # A closing that did not come to its end is as new as can be.
    closed_at = (_closed_at(reference) or datetime.now(UTC)) if is_closed else None
    return Branch(name, closed_at)


def _closed_at(reference: Json) -> datetime | None:
    """When a branch was closed or merged; None while that is not complete."""
    newest = reference["metadata"]["commitMetaOfHEAD"]
    properties = newest.get("allProperties") or {}
    is_merged = merged_name(branch_of(reference["name"])[0]) == reference["name"]
    return _time(newest) if is_merged or _CLOSED in properties else None


def _base(reference: Json) -> str:
    base: str = reference["metadata"]["commonAncestorHash"]
    return base


def _properties(branch: str, run_id: UUID | None, attempt: int | None) -> dict[str, str]:
    properties = {_BRANCH: branch}
    if run_id is not None:
        properties[_RUN_ID] = str(run_id)
    if attempt is not None:
        properties[_ATTEMPT] = str(attempt)
    return properties


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


def _merged(entry: Json) -> Merged:
    commit = entry["commitMeta"]
    properties = {name: values[0] for name, values in (commit.get("allProperties") or {}).items()}
    run_id, attempt = properties.get(_RUN_ID), properties.get(_ATTEMPT)
    return Merged(
        snapshot=commit["hash"],
        at=_time(commit),
        run_id=UUID(run_id) if run_id else None,
        attempt=int(attempt) if attempt else None,
        tables={name: found.location if found is not None else None for name, found in sorted(_changes(entry).items())},
    )


def _changes(entry: Json) -> dict[Qualified, Relation | None]:
    """What a commit has put where; None where something was dropped."""
    return {
        Qualified(*operation["key"]["elements"]): (
            _relation(operation["content"]) if operation["type"] == "PUT" else None
        )
        for operation in entry.get("operations") or []
        if len(operation["key"]["elements"]) == len(Qualified._fields)
    }


def _time(commit: Json) -> datetime:
    return datetime.fromisoformat(commit["commitTime"])


def _snapshot(text: str) -> str:
    if not is_hash(text):
        raise Invalid(f"{text!r} is not a snapshot")
    return text


def _refuse_main(name: str) -> None:
    if name == MAIN:
        raise Invalid("main can be neither closed, deleted nor merged")


def _no_branch(name: str) -> NotFound:
    return NotFound(f"no branch {name!r}")


def _no_reference(at: str) -> NotFound:
    return NotFound(f"no snapshot {at!r}" if is_hash(at) else f"no branch or snapshot {at!r}")


@contextmanager
def _translated() -> Iterator[None]:
    """What Nessie refuses for a reason that nobody foresaw."""
    try:
        yield
    except Refused as refused:
        if refused.is_missing_reference:
            raise NotFound(refused.message) from refused
        if refused.status == 409:
            raise Conflict(refused.message) from refused
        raise Invalid(refused.message) from refused
