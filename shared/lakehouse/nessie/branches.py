"""Branches: made, closed and swept, by the names of their references in Nessie.

Whoever closes a name makes the closed reference first and looks for the open one then, and whoever makes a branch
looks for the closed one after: one sees the other.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from shared.errors import AlreadyExists, Unavailable
from shared.lakehouse.nessie.api import Json, NessieApi, Refused, time_of
from shared.lakehouse.nessie.names import branch_of, check_name, closed_name, merged_name
from shared.lakehouse.nessie.references import References
from shared.lakehouse.port import MAIN, Branch
from shared.lakehouse.refusals import branch_closed, branch_exists, no_branch

_CLOSED: Final = "rat.closed"
"""The property of the commit that says when a branch was closed; it changes nothing."""


class Branches:
    """All branches but main."""

    def __init__(self, api: NessieApi, references: References) -> None:
        self._api = api
        self._references = references

    async def create(self, name: str) -> str:
        """Make a branch from main and give the snapshot that it starts from."""
        if name == MAIN:
            raise branch_exists(name)
        check_name(name)
        base = await self._references.main()
        await self._references.make(name, base)
        if await self._references.closed(name):
            await self._references.delete(name)
            raise branch_closed(name)
        return base

    async def close(self, name: str) -> None:
        """See to it that a branch of this name is not committed to or merged any more."""
        while not await self._has_closed(name):
            pass

    async def close_merged(self, reference: Json, at: str) -> None:
        """Let a branch go on under the name of a merged one, as main was right after the merge.

        It is merged, whatever becomes of this; who finds it on main closes the branch then.
        """
        branch = reference["name"]
        with suppress(Refused, Unavailable):
            with suppress(AlreadyExists):
                await self._references.make(merged_name(branch), at)
            if not await self._references.is_deleted(reference):
                await self._references.delete(branch)

    async def delete(self, name: str) -> None:
        """Forget a branch, whatever its state."""
        for reference in (name, closed_name(name), merged_name(name)):
            await self._references.delete(reference)

    async def all(self, prefix: str) -> list[Branch]:
        """List the branches whose names start so, by name."""
        names = [name for name in await self._references.names(prefix) if branch_of(name)[0].startswith(prefix)]
        known: dict[str, Branch] = {}
        for branch in map(_branch, await self._references.of(names)):
            # While a branch is being closed it has both names; it is open until it has lost the first.
            if branch.name not in known or branch.closed_at is None:
                known[branch.name] = branch
        return sorted(known.values(), key=lambda branch: branch.name)

    async def is_closed(self, name: str) -> bool:
        """Whether a branch was closed or merged."""
        if await self._references.find(name) is not None:
            return False
        if await self._references.closed(name):
            return True
        raise no_branch(name)

    async def sweep(self, closed_for: timedelta) -> list[str]:
        """Delete the branches that were closed longer ago than this, and say which."""
        until = datetime.now(UTC) - closed_for
        swept = set()
        names = [name for name in await self._references.names() if branch_of(name)[1]]
        for reference in await self._references.of(names):
            branch = branch_of(reference["name"])[0]
            closed_at = _closed_at(reference)
            if closed_at is None:
                # Whoever was closing it did not come to its end; its time starts now.
                await self.close(branch)
            elif closed_at <= until:
                await self._references.delete(reference["name"])
                swept.add(branch)
        return sorted(swept)

    async def _has_closed(self, name: str) -> bool:
        """Close a branch, from whatever state it is found in; False if somebody moved it meanwhile."""
        opened, closed = await asyncio.gather(self._references.find(name), self._references.closed(name))
        if any(_closed_at(reference) is not None for reference in closed):
            # A branch beside it is of somebody who made it too late, or was just about to delete it.
            return opened is None or await self._references.is_deleted(opened)
        half_closed = closed[0] if closed else None
        found = opened or half_closed
        at = found["hash"] if found is not None else await self._references.main()
        if not await self._is_at(closed_name(name), half_closed, at):
            return False
        if opened is not None and not await self._references.is_deleted(opened):
            return False
        if opened is None and await self._references.find(name) is not None:
            return False
        return await self._is_marked(closed_name(name), at)

    async def _is_at(self, name: str, reference: Json | None, at: str) -> bool:
        """Make a reference at a commit, or move it there; False if somebody else does so, too."""
        try:
            if reference is None:
                await self._references.make(name, at)
            elif reference["hash"] != at:
                await self._references.move(reference, at)
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
            await self._api.commit(name, at, "close", [operation], properties={_CLOSED: "true"})
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            return False
        return True


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
    return time_of(newest) if is_merged or _CLOSED in properties else None
