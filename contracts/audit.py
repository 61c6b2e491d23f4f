"""Who did what."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from contracts.messages import Event, Message, Query
from contracts.paging import PageRequest
from contracts.text import Text


class AuditRecorded(Event, subject="audit.recorded"):
    """Somebody did something through the API, with this outcome."""

    user_id: str
    action: str
    """`<noun>.<verb>`, as `pipeline.create` or `run.trigger`."""
    resource: str
    detail: dict[str, Any] = {}
    outcome: Literal["success", "failure"]
    ip: str | None = None


class AuditEntry(Message):
    """What somebody did, as the API shows it."""

    id: UUID
    user_id: str
    action: str
    resource: str
    detail: dict[str, Any]
    outcome: Literal["success", "failure"]
    ip: str | None
    created_at: datetime


class AuditEntries(Message):
    """A page of the audit log. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    entries: list[AuditEntry]
    total: int
    next_cursor: str | None = None


class ListAudit(Query[AuditEntries], PageRequest, subject="catalog.list_audit"):
    """List who did what, the newest first."""

    user: Text | None = None
    action: Text | None = Field(default=None, examples=["pipeline.create"])
    resource: Text | None = None
