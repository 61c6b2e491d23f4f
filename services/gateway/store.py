"""The SQL of the gateway: its API tokens."""

import asyncpg

from shared.database import Connection


async def add_token(connection: Connection, name: str, token_hash: str, scope: str) -> None:
    """Keep a new token; a unique index refuses a name that is in use."""
    await connection.execute("insert into api_tokens (name, hash, scope) values ($1, $2, $3)", name, token_hash, scope)


async def revoke_token(db: asyncpg.Pool, name: str) -> bool:
    """Revoke a token; false if there is none of that name."""
    revoked = await db.fetchval(
        """
        update api_tokens
        set revoked_at = now()
        where name = $1 and revoked_at is null
        returning true
        """,
        name,
    )
    return revoked is not None


async def find_token(db: asyncpg.Pool, token_hash: str) -> asyncpg.Record | None:
    """The token of this hash, unless it was revoked."""
    return await db.fetchrow("select name, scope from api_tokens where hash = $1 and revoked_at is null", token_hash)


async def has_tokens(db: asyncpg.Pool) -> bool:
    """Whether any token is accepted."""
    found: bool = await db.fetchval("select exists (select from api_tokens where revoked_at is null)")
    return found
