"""Nessie's references: main, and what branches are called while they are open and once they are closed."""

import asyncio
from collections.abc import Iterable
from typing import Final

from shared.errors import NotFound
from shared.lakehouse.nessie.api import Json, NessieApi, Refused, literal, segment
from shared.lakehouse.nessie.names import closed_name, merged_name, prefixes
from shared.lakehouse.port import MAIN, BranchClosed
from shared.lakehouse.refusals import branch_closed, branch_exists, no_branch

AT_ONCE: Final = 8
"""Requests that one question makes at the same time."""


class References:
    """Looked up, made and deleted by name."""

    def __init__(self, api: NessieApi) -> None:
        self._api = api

    async def main(self) -> str:
        """Main's newest commit."""
        answer = await self._api.get(f"/trees/{MAIN}")
        head: str = answer["reference"]["hash"]
        return head

    async def find(self, name: str) -> Json | None:
        """The reference of a name; None where there is none."""
        return await self._find(name)

    async def find_with_metadata(self, name: str) -> Json | None:
        """The same, with what its newest commit says and where it left main."""
        return await self._find(name, fetch="ALL")

    async def of(self, names: Iterable[str]) -> list[Json]:
        """The references of these names with their metadata, without those that are gone."""
        places = asyncio.Semaphore(AT_ONCE)

        async def reference(name: str) -> Json | None:
            async with places:
                return await self.find_with_metadata(name)

        found = await asyncio.gather(*(reference(name) for name in names))
        return [one for one in found if one is not None]

    async def closed(self, branch: str) -> list[Json]:
        """What a branch goes on as that was closed or merged, with metadata."""
        return await self.of([merged_name(branch), closed_name(branch)])

    async def gone(self, branch: str) -> BranchClosed | NotFound:
        """Why there is no open branch of this name."""
        return branch_closed(branch) if await self.closed(branch) else no_branch(branch)

    async def names(self, prefix: str = "") -> list[str]:
        """The names of all references that may be branches whose names start so."""
        wanted = " || ".join(f"ref.name.startsWith({literal(one)})" for one in prefixes(prefix))
        return [
            reference["name"]
            async for page in self._api.pages("/trees", "references", filter=wanted)
            for reference in page
            if reference["name"] != MAIN and reference["type"] == "BRANCH"
        ]

    async def make(self, name: str, at: str) -> None:
        """Make a reference at a commit; `AlreadyExists` where there is one of that name."""
        try:
            await self._api.ask("POST", "/trees", body=_commit(at), query={"name": name, "type": "BRANCH"})
        except Refused as refused:
            if refused.code != "REFERENCE_ALREADY_EXISTS":
                raise
            raise branch_exists(name) from refused

    async def move(self, reference: Json, to: str) -> None:
        """Move a reference to another commit, from where it was seen."""
        await self._api.ask("PUT", _seen(reference), body=_commit(to), query={"type": "BRANCH"})

    async def delete(self, name: str) -> None:
        """Delete a reference wherever it is."""
        while (reference := await self.find(name)) is not None and not await self.is_deleted(reference):
            pass

    async def is_deleted(self, reference: Json) -> bool:
        """Delete a reference where it was seen; False if it has moved since."""
        try:
            await self._api.ask("DELETE", _seen(reference), query={"type": "BRANCH"})
        except Refused as refused:
            if refused.is_missing_reference:
                return True
            if refused.code != "REFERENCE_CONFLICT":
                raise
            return False
        return True

    async def _find(self, name: str, **query: str) -> Json | None:
        try:
            answer = await self._api.get(f"/trees/{segment(name)}", **query)
        except Refused as refused:
            if refused.is_missing_reference:
                return None
            raise
        reference: Json = answer["reference"]
        return reference


def _commit(at: str) -> Json:
    """Where a reference is made, or moved to: Nessie goes by the hash, and wants a name beside it."""
    return {"type": "BRANCH", "name": MAIN, "hash": at}


def _seen(reference: Json) -> str:
    return f"/trees/{segment(reference['name'], at=reference['hash'])}"
