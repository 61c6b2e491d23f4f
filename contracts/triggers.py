"""Triggers: what they decided, and what is asked about them."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from pydantic import Field

from contracts.messages import Event, Message, Query
from contracts.names import Layer, Name, PipelineName
from contracts.paging import PageRequest
from contracts.text import Values

MAX_COOLDOWN_SECONDS = 366 * 24 * 3600


class TriggerType(StrEnum):
    """What a trigger fires on."""

    LANDING_ZONE_UPLOAD = "landing_zone_upload"
    """A file lands in a zone; config: `namespace`, `zone_name`."""
    PIPELINE_SUCCESS = "pipeline_success"
    """A run of another pipeline succeeds; config: `namespace`, `layer`, `pipeline`."""


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


class Trigger(Message):
    """A trigger as the API shows it."""

    id: UUID
    pipeline_id: UUID
    type: TriggerType
    config: dict[str, Any]
    enabled: bool
    cooldown_seconds: int
    last_triggered_at: datetime | None
    last_run_id: UUID | None
    created_at: datetime
    updated_at: datetime


class Triggers(Message):
    """A page of the triggers of a pipeline."""

    triggers: list[Trigger]
    total: int
    next_cursor: str | None = None


class TriggerDecision(Message):
    """What a trigger did about one event, and why."""

    id: UUID
    trigger_id: UUID
    decision: Decision
    reason: str
    event_id: UUID
    """The event that was decided on."""
    event: str
    """That event's subject; `manual` for a firing by hand."""
    run_id: UUID | None
    """The run that was or will be asked for; none for what was skipped."""
    due_at: datetime | None
    """The end of the cooldown, for a firing that was deferred."""
    coalesced_into: UUID | None
    """The decision whose firing this event joined."""
    fired_at: datetime | None
    """When the run was asked for; none while a deferred firing waits."""
    created_at: datetime


class TriggerDecisions(Message):
    """A page of the decisions of a trigger."""

    decisions: list[TriggerDecision]
    total: int
    next_cursor: str | None = None


class OfPipeline(Message):
    """Names the pipeline whose triggers are meant."""

    namespace: Name
    layer: Layer
    name: Name

    @property
    def pipeline(self) -> str:
        """The pipeline's name in full."""
        return f"{self.namespace}.{self.layer}.{self.name}"


class OneTrigger(OfPipeline):
    """Names one trigger of a pipeline."""

    trigger_id: UUID


class CreateTrigger(Query[Trigger], OfPipeline, subject="trigger.create_trigger"):
    """Make a trigger for a pipeline.

    NotFound if the pipeline, or what the trigger watches, does not exist; Conflict if it would close a cycle of
    pipelines that trigger each other.
    """

    id: UUID = Field(default_factory=uuid4)
    """The new trigger's id: asking twice makes one."""
    type: TriggerType
    config: Values
    enabled: bool = True
    cooldown_seconds: int = Field(default=0, ge=0, le=MAX_COOLDOWN_SECONDS)


class ListTriggers(Query[Triggers], OfPipeline, PageRequest, subject="trigger.list_triggers"):
    """List the triggers of a pipeline, the oldest first; NotFound if there is no such pipeline."""


class FindTrigger(Query[Trigger], OneTrigger, subject="trigger.find_trigger"):
    """Show one trigger; NotFound if the pipeline has none of that id."""


class UpdateTrigger(Query[Trigger], OneTrigger, subject="trigger.update_trigger"):
    """Change what is given and leave the rest; disabling a trigger skips the firing that waits."""

    config: Values | None = None
    enabled: bool | None = None
    cooldown_seconds: int | None = Field(default=None, ge=0, le=MAX_COOLDOWN_SECONDS)


class DeleteTrigger(Query[None], OneTrigger, subject="trigger.delete_trigger"):
    """Remove a trigger with its decisions; NotFound if the pipeline has none of that id."""


class ListDecisions(Query[TriggerDecisions], OneTrigger, PageRequest, subject="trigger.list_decisions"):
    """List what a trigger decided, the newest first."""


class FireTrigger(Query[TriggerDecision], OneTrigger, subject="trigger.fire_trigger"):
    """Fire a trigger by hand: decided like any other of its events, cooldown included."""

    event_id: UUID = Field(default_factory=uuid4)
    """Asking twice with the same one is one firing."""
