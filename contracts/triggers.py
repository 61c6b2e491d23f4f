"""Triggers: what they decided, and what is asked about them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from contracts.messages import Event
from contracts.names import PipelineName


class Decision(StrEnum):
    """What a trigger did about an event."""

    FIRED = "fired"
    DEFERRED = "deferred"
    COALESCED = "coalesced"
    SKIPPED = "skipped"


class TriggerDecided(Event, subject="trigger.decided", outside="subscribers and the event stream of the API"):
    """A trigger fired, waits, joined a firing that waits, or did nothing, and why."""

    decision_id: UUID
    trigger_id: UUID
    pipeline: PipelineName
    decision: Decision
    reason: str
    cause_id: UUID
    """The event that was decided on."""
    run_id: UUID | None = None
    """The run that was or will be asked for."""
    due_at: datetime | None = None
    coalesced_into: UUID | None = None
