"""The SQL of the audit log."""

from typing import Any

import asyncpg

from contracts.audit import AuditEntry, AuditRecorded, ListAudit


async def record(db: asyncpg.Pool, event: AuditRecorded, detail: object) -> None:
    """Keep what somebody did, once."""
    await db.execute(
        """
        insert into audit_log (id, user_id, action, resource, detail, outcome, ip, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (id) do nothing
        """,
        event.event_id,
        event.user_id,
        event.action,
        event.resource,
        detail,
        event.outcome,
        event.ip,
        event.occurred_at,
    )


_MATCHES = """
($1::text is null or user_id = $1)
and ($2::text is null or action = $2)
and ($3::text is null or resource = $3)
"""


def _criteria(query: ListAudit) -> tuple[Any, ...]:
    return query.user, query.action, query.resource


async def count(db: asyncpg.Pool, query: ListAudit) -> int:
    """How many entries of the audit log match."""
    total: int = await db.fetchval(f"select count(*) from audit_log where {_MATCHES}", *_criteria(query))
    return total


async def page(db: asyncpg.Pool, query: ListAudit, *, start: int) -> list[AuditEntry]:
    """Entries of the audit log, the newest first."""
    rows = await db.fetch(
        f"""
        select id, user_id, action, resource, detail, outcome, ip, created_at
        from audit_log
        where {_MATCHES}
        order by created_at desc, id
        limit $4 offset $5
        """,
        *_criteria(query),
        query.limit,
        start,
    )
    return [AuditEntry.model_validate(dict(row)) for row in rows]
