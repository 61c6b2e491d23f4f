"""API tokens, made and revoked beside the gateway, with its role: whoever may do that can read its database anyway."""

import asyncio
from pathlib import Path

from infra.servers.directory import write_privately
from services.gateway.tokens import Scope, tokens
from shared.settings import Settings


def make_token(settings: Settings, name: str, scope: Scope, *, unless_any: bool, file: Path | None) -> str | None:
    """Make a token and give it, or write it down; None if there is one already and none is wanted then.

    `AlreadyExists` if the name is in use.
    """

    async def make() -> str | None:
        async with tokens(settings) as known:
            if unless_any and await known.any():
                return None
            return await known.create(name, scope)

    made = asyncio.run(make())
    if made is not None and file is not None:
        write_privately(file, f"{made}\n")
    return made


def revoke(settings: Settings, name: str) -> None:
    """Revoke a token; `NotFound` if none of that name is in use."""

    async def end() -> None:
        async with tokens(settings) as known:
            await known.revoke(name)

    asyncio.run(end())
