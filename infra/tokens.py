"""API tokens, made and revoked beside the gateway, with its role: whoever may do that can read its database anyway."""

import asyncio
from pathlib import Path
from secrets import token_hex

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


async def kept_token(settings: Settings, file: Path) -> str:
    """The token of whoever may read this file; made where there is none, or one that was revoked."""
    kept = await asyncio.to_thread(_read, file)
    async with tokens(settings) as known:
        if kept is not None and await known.find(kept) is not None:
            return kept
        # Of one that was made by a start that was killed before it wrote it down, nobody knows more than the name.
        made = await known.create(f"rat-up-{token_hex(4)}", Scope.ADMIN)
    write_privately(file, f"{made}\n")
    return made


def revoke(settings: Settings, name: str) -> None:
    """Revoke a token; `NotFound` if none of that name is in use."""

    async def end() -> None:
        async with tokens(settings) as known:
            await known.revoke(name)

    asyncio.run(end())


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return None
