"""A branch becomes part of main, all of it or nothing, by one commit."""

import asyncio
from uuid import UUID

from contracts.names import Qualified
from shared.errors import Unavailable
from shared.lakehouse.nessie.api import Json, NessieApi, Refused, segment
from shared.lakehouse.nessie.branches import Branches
from shared.lakehouse.nessie.contents import Contents
from shared.lakehouse.nessie.log import Log, properties
from shared.lakehouse.nessie.references import References
from shared.lakehouse.port import MAIN, MergeConflict, Merged


class Merging:
    """Moves main, with the token of a role that may."""

    def __init__(self, api: NessieApi, references: References, token: str) -> None:
        self._api = api
        self._references = references
        self._branches = Branches(api, references)
        self._contents = Contents(api)
        self._log = Log(api)
        self._token = token

    async def merge(self, branch: str, run_id: UUID | None, attempt: int | None, since: str) -> Merged | None:
        """Put all tables that a branch changed on main at once, or none, and close the branch."""
        earlier, reference = await asyncio.gather(
            self._merge_of(run_id, since), self._references.find_with_metadata(branch)
        )
        if earlier is not None:
            return earlier
        if reference is None:
            raise await self._references.gone(branch)
        if reference["hash"] == _base(reference):
            return None
        try:
            merged_at = await self._move_main(reference, properties(branch, run_id, attempt))
        except Refused as refused:
            if not refused.is_missing_reference:
                raise
            raise await self._references.gone(branch) from refused
        if merged_at is None:
            return None
        merged, _ = await asyncio.gather(self._log.at(merged_at), self._branches.close_merged(reference, merged_at))
        return merged

    async def _merge_of(self, run_id: UUID | None, since: str) -> Merged | None:
        return None if run_id is None else await self._log.of_run(run_id, since)

    async def _move_main(self, reference: Json, said: dict[str, str]) -> str | None:
        """Merge a branch that was committed to, and give the snapshot that came of it; None where no table changed."""
        branch, base = reference["name"], _base(reference)
        body = {
            "fromRefName": branch,
            "fromHash": reference["hash"],
            "commitMeta": {"message": f"merge {branch}", "properties": said},
        }
        try:
            # The hash in the path only says which main is known; what counts is whether a table was changed on both.
            path = f"/trees/{segment(MAIN, at=base)}/history/merge"
            answer = await self._api.ask("POST", path, token=self._token, body=body, query={})
        except Refused as refused:
            if refused.status != 409:
                raise
            # Nessie also names keys that are not in conflict.
            moved = await self._changed(reference) & await self._contents.changed(MAIN, base)
            if not moved:
                raise Unavailable(f"Nessie did not merge {branch!r} now: {refused.message}") from refused
            raise MergeConflict(branch, tuple(sorted(moved))) from refused
        except Unavailable:
            # The answer is lost, not necessarily the merge.
            if merged := await self._log.of_branch(branch, base):
                return merged.snapshot
            raise
        if answer["wasApplied"]:
            snapshot: str = answer["resultantTargetHash"]
            return snapshot
        # Somebody else has merged it since it was looked at.
        if merged := await self._log.of_branch(branch, base):
            return merged.snapshot
        if not await self._changed(reference):
            return None
        raise Unavailable(f"Nessie did not apply the merge of {branch!r}, and does not say why")

    async def _changed(self, reference: Json) -> set[Qualified]:
        """What a branch has changed. It is asked for where it is needed only: Nessie goes through all tables for it."""
        return await self._contents.changed(segment(reference["name"], at=reference["hash"]), _base(reference))


def _base(reference: Json) -> str:
    base: str = reference["metadata"]["commonAncestorHash"]
    return base
