"""Who did what."""

from typing import Any, Literal

from contracts.messages import Event


class AuditRecorded(Event, subject="audit.recorded"):
    """Somebody did something through the API, with this outcome."""

    user_id: str
    action: str
    """`<noun>.<verb>`, as `pipeline.create` or `run.trigger`."""
    resource: str
    detail: dict[str, Any] = {}
    outcome: Literal["success", "failure"]
    ip: str | None = None
