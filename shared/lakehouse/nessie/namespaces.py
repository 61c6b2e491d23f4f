"""The namespaces of tables, which Nessie wants to be on main before there is a table in them."""

from collections.abc import Sequence
from typing import TypeAlias

from shared.lakehouse.nessie.api import NessieApi, Refused
from shared.lakehouse.nessie.references import References
from shared.lakehouse.port import MAIN

Levels: TypeAlias = tuple[str, ...]


class Namespaces:
    """All that are on main; none ever goes."""

    def __init__(self, api: NessieApi, references: References, token: str | None) -> None:
        """Know Nessie; commits to main need the token of a role that may make them."""
        self._api = api
        self._references = references
        self._token = token

    async def names(self) -> set[str]:
        """List them, with dots between their levels."""
        return {
            ".".join(entry["name"]["elements"])
            async for page in self._api.pages(f"/trees/{MAIN}/entries", "entries")
            for entry in page
            if entry["type"] == "NAMESPACE"
        }

    async def add(self, *names: Levels) -> None:
        """See to it that there are these, each after those that it is in."""
        while missing := await self._missing(names):
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
                await self._api.commit(MAIN, await self._references.main(), message, operations, token=self._token)
            except Refused as refused:
                # Somebody else was faster: it says 400 where the namespace exists at the hash, 409 where it came since.
                if refused.status not in (400, 409) or await self._missing(missing) == missing:
                    raise

    async def _missing(self, names: Sequence[Levels]) -> list[Levels]:
        body = {"requestedKeys": [{"elements": list(name)} for name in names]}
        answer = await self._api.ask("POST", f"/trees/{MAIN}/contents", body=body, query={})
        known = {tuple(content["key"]["elements"]) for content in answer["contents"]}
        return [name for name in names if name not in known]
