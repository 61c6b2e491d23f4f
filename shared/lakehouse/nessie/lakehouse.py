"""The port of the lakehouse, over Nessie."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from contracts.names import Qualified
from shared.errors import Conflict, Forbidden, Invalid, NotFound
from shared.lakehouse.nessie.api import NessieApi, Refused, session
from shared.lakehouse.nessie.branches import Branches
from shared.lakehouse.nessie.contents import Contents
from shared.lakehouse.nessie.log import Log
from shared.lakehouse.nessie.merging import Merging
from shared.lakehouse.nessie.names import branch_of
from shared.lakehouse.nessie.namespaces import Namespaces
from shared.lakehouse.nessie.references import AT_ONCE, References
from shared.lakehouse.port import (
    BEGINNING,
    MAIN,
    Branch,
    Lakehouse,
    Merged,
    MetadataFile,
    Relation,
    TableChange,
    ViewFile,
)
from shared.lakehouse.refusals import refuse_commit_to_main, refuse_main
from shared.settings import Settings

MERGER: Final = "merge"
"""The role with whose token the runner moves main: no process that runs an author's code has it."""

_FIRST_NAMESPACE: Final = "default"


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


class NessieLakehouse(Lakehouse):
    """Says what Nessie says, in the words of the port."""

    def __init__(self, api: NessieApi, *, merge_token: str | None, merges_settle_within: timedelta) -> None:
        self._references = References(api)
        self._branches = Branches(api, self._references)
        self._contents = Contents(api)
        self._namespaces = Namespaces(api, self._references, merge_token)
        self._log = Log(api)
        self._merging = Merging(api, self._references, merge_token) if merge_token is not None else None
        self._ensured: set[tuple[str, str]] = set()
        self.merges_settle_within = merges_settle_within

    async def set_up(self) -> None:
        """Give an empty main its first commit: without one, no branch would have anything in common with it."""
        with _translated():
            await self._namespaces.add((_FIRST_NAMESPACE,))

    async def head(self) -> str:
        """Name main's newest snapshot."""
        with _translated():
            return await self._references.main()

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Make sure that tables can be created in `namespace.layer`, on every branch that is made from now on."""
        if (namespace, layer) in self._ensured:
            # None ever goes.
            return
        with _translated():
            await self._namespaces.add((namespace,), (namespace, layer))
        self._ensured.add((namespace, layer))

    async def namespaces(self) -> set[str]:
        """List the namespaces of tables on main, with dots between their levels: `ns` and `ns.layer`."""
        with _translated():
            return await self._namespaces.names()

    async def create_branch(self, name: str) -> str:
        """Make a branch from main and give the snapshot that it starts from."""
        with _translated():
            return await self._branches.create(name)

    async def close_branch(self, name: str) -> None:
        """See to it that a branch of this name is not committed to or merged any more; it stays readable."""
        refuse_main(name)
        with _translated():
            await self._branches.close(name)

    async def delete_branch(self, name: str) -> None:
        """Forget a branch, whatever its state; missing is fine."""
        refuse_main(name)
        with _translated():
            await self._branches.delete(name)

    async def branches(self, prefix: str = "") -> list[Branch]:
        """List the branches whose names start so, by name, without main."""
        with _translated():
            return await self._branches.all(prefix)

    async def is_closed(self, name: str) -> bool:
        """Whether a branch was closed or merged."""
        with _translated():
            return await self._branches.is_closed(name)

    async def sweep_branches(self, closed_for: timedelta) -> list[str]:
        """Delete the branches that were closed longer ago than this, and say which."""
        with _translated():
            return await self._branches.sweep(closed_for)

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move a table or view on a branch from one metadata file to the next."""
        refuse_commit_to_main(branch, table)
        with _translated():
            try:
                await self._contents.move(branch, table, expected, new)
            except Refused as refused:
                if refused.is_missing_reference:
                    raise await self._references.gone(branch) from refused
                raise Conflict(f"{str(table)!r} on {branch!r} was not changed: {refused.message}") from refused

    async def merge(
        self, branch: str, run_id: UUID | None, attempt: int | None, since: str = BEGINNING
    ) -> Merged | None:
        """Put all tables that a branch changed on main at once, or none, and close the branch."""
        refuse_main(branch)
        if self._merging is None:
            raise Forbidden("this role may not move main: it has no token of the role 'merge'")
        with _translated():
            return await self._merging.merge(branch, run_id, attempt, since)

    async def find_merge(self, run_id: UUID, since: str) -> Merged | None:
        """Look for the merge of a run in the log after a snapshot."""
        with _translated():
            return await self._log.of_run(run_id, since)

    async def history(self, table: Qualified, limit: int, before: str | None = None) -> list[TableChange]:
        """List the changes of a table or view on main, newest first, from before a snapshot if one is given."""
        changes: list[TableChange] = []
        with _translated():
            async for merged in self._log.of(table, newest=before):
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
            return await self._contents.relations(at)

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for at a reference; None where it stands for nothing."""
        with _translated():
            return await self._contents.relation(name, at)

    async def live_metadata(self) -> set[Relation]:
        """List all tables and views that are on main now, or on any branch, open or closed."""
        places = asyncio.Semaphore(AT_ONCE)

        async def on(name: str) -> set[Relation]:
            async with places:
                # Swept, or closed, since it was listed; it goes on under another name then.
                with suppress(NotFound):
                    return set((await self._contents.relations(branch_of(name)[0])).values())
            return set()

        with _translated():
            found = await asyncio.gather(*(on(name) for name in await self._references.names()))
            # Main last: what is merged meanwhile is seen there.
            return set((await self._contents.relations()).values()).union(*found)

    async def past_metadata(self, since: datetime | None) -> set[Relation]:
        """List all tables and views of all entries of the log, back to a time if one is given."""
        past: set[Relation] = set()
        oldest = MAIN
        with _translated():
            async for merged, relations in self._log.all():
                if since is not None and merged.at < since:
                    # The oldest entry shows what earlier ones brought and nobody has changed by then.
                    return past | set((await self._contents.relations(oldest)).values())
                oldest = merged.snapshot
                past.update(relations)
        return past


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
