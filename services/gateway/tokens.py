"""API tokens: made once, shown once, kept as hashes, revoked by name."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

import asyncpg

from services.gateway import store
from shared.database import database, transaction
from shared.errors import AlreadyExists, NotFound
from shared.settings import Settings

MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Scope(StrEnum):
    """What a token may do; each one includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        """Whether who has this one may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class Tokens:
    """The tokens that may be used."""

    def __init__(self, db: asyncpg.Pool) -> None:
        self._db = db

    async def create(self, name: str, scope: Scope) -> str:
        """Make a token of this name and give it, for the only time; AlreadyExists if the name is in use."""
        token = f"rat_{secrets.token_urlsafe(32)}"
        try:
            async with transaction(self._db) as connection:
                await store.add_token(connection, name, hash_of(token), scope)
        except asyncpg.UniqueViolationError as error:
            raise AlreadyExists(f"there is a token {name!r} already") from error
        return token

    async def revoke(self, name: str) -> None:
        """See to it that a token is not accepted any more; NotFound if there is none of that name."""
        if not await store.revoke_token(self._db, name):
            raise NotFound(f"no token {name!r}")

    async def find(self, token: str) -> tuple[str, Scope] | None:
        """Whose token it is and what it may do; None if it is not accepted."""
        found = await store.find_token(self._db, hash_of(token))
        return None if found is None else (found["name"], Scope(found["scope"]))

    async def any(self) -> bool:
        """Whether there is a token at all."""
        return await store.has_tokens(self._db)


def hash_of(token: str) -> str:
    """A token is random enough that a plain hash hides it."""
    return hashlib.sha256(token.encode()).hexdigest()


@asynccontextmanager
async def tokens(settings: Settings) -> AsyncIterator[Tokens]:
    """Open the store of tokens."""
    async with database(settings, "gateway", MIGRATIONS) as db:
        yield Tokens(db)
