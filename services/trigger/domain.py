"""The rules by which a trigger fires, waits, joins or skips (`triggers.md`, Triggers)."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from contracts.messages import Event, derived_id
from contracts.runs import Overlap, RunOutcome, RunRequested, run_id_for
from contracts.triggers import Decision, TriggerDecided


class Fate(StrEnum):
    """What became of the run of a firing."""

    UNDER_WAY = "under way"
    ENDED = "ended"
    REFUSED = "refused"
    LOST = "lost"
    """Catalog never heard of it: the request was lost."""


@dataclass(frozen=True)
class Cause:
    """The event that a trigger decides on."""

    id: UUID
    subject: str


@dataclass(frozen=True)
class Firing:
    """A run that was asked for."""

    decision_id: UUID
    run_id: UUID
    fired_at: datetime


@dataclass(frozen=True)
class Deferred:
    """A firing that waits, at the least until the cooldown ends at `due_at`."""

    decision_id: UUID
    due_at: datetime


@dataclass(frozen=True)
class PipelineTrigger:
    """A trigger and what it is about to do."""

    id: UUID
    pipeline_id: UUID
    pipeline: str
    label: str
    enabled: bool
    cooldown: timedelta
    last: Firing | None = None
    waits_for: UUID | None = None
    """The run of the last firing, until its end was heard."""
    deferred: Deferred | None = None
    overdue_since: datetime | None = None
    """Since when, or from when on, a firing waits for nothing but the end of `waits_for`."""

    @property
    def waits_for_time_only(self) -> bool:
        """Whether a firing waits for its due time and nothing else."""
        return self.deferred is not None and self.waits_for is None


@dataclass(frozen=True)
class Decided:
    """What a trigger did about an event, and why."""

    id: UUID
    trigger_id: UUID
    cause: Cause
    decision: Decision
    reason: str
    decided_at: datetime
    run_id: UUID | None = None
    due_at: datetime | None = None
    coalesced_into: UUID | None = None
    fired_at: datetime | None = None


@dataclass(frozen=True)
class Step:
    """What becomes of a trigger: how it is then, what it decided, and the run that it asks for."""

    trigger: PipelineTrigger
    decided: Decided | None = None
    fired: Firing | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """What is to be said about this step; the run's request first, as somebody waits for it."""
        request = () if self.fired is None else (run_request(self.trigger, self.fired),)
        if self.decided is None:
            return request
        return (*request, announcement(self.decided, self.trigger.pipeline, self.decided.decided_at))


def decide(trigger: PipelineTrigger, cause: Cause, now: datetime) -> Step:
    """What the trigger does about an event: no event is dropped, and no run closer to the last than the cooldown."""
    if not trigger.enabled:
        return skip(trigger, cause, "the trigger is disabled", now)
    decision_id = _decision_id(trigger, cause)
    if trigger.deferred is not None:
        into = trigger.deferred.decision_id
        reason = "joins the firing that waits"
        decided = Decided(decision_id, trigger.id, cause, Decision.COALESCED, reason, now, coalesced_into=into)
        return Step(trigger, decided)
    end = _end_of_cooldown(trigger)
    if trigger.waits_for is not None or (end is not None and now < end):
        due_at = end or now
        decided = Decided(
            decision_id,
            trigger.id,
            cause,
            Decision.DEFERRED,
            _why_it_waits(trigger, due_at, now),
            now,
            run_id=run_id_for(trigger.pipeline, str(decision_id)),
            due_at=due_at,
        )
        return Step(_waiting(trigger, Deferred(decision_id, due_at), now), decided)
    step = _fire(trigger, decision_id, now)
    assert step.fired is not None
    reason = "no cooldown and no run of this trigger is under way"
    decided = Decided(
        decision_id, trigger.id, cause, Decision.FIRED, reason, now, run_id=step.fired.run_id, fired_at=now
    )
    return replace(step, decided=decided)


def skip(trigger: PipelineTrigger, cause: Cause, reason: str, now: datetime) -> Step:
    """The trigger does nothing about an event, and says why."""
    return Step(trigger, Decided(_decision_id(trigger, cause), trigger.id, cause, Decision.SKIPPED, reason, now))


def release(trigger: PipelineTrigger, now: datetime) -> Step:
    """Fire what was deferred, if its cooldown has passed and the run of the last firing has ended."""
    deferred = trigger.deferred
    if deferred is None or trigger.waits_for is not None or now < deferred.due_at:
        return Step(trigger)
    return _fire(trigger, deferred.decision_id, now)


def end(trigger: PipelineTrigger, run_id: UUID, now: datetime) -> Step:
    """A run has ended: if it was that of the last firing, what was deferred may go."""
    if trigger.waits_for != run_id:
        return Step(trigger)
    return release(replace(trigger, waits_for=None, overdue_since=None), now)


def refuse(trigger: PipelineTrigger, run_id: UUID, previous: Firing | None, now: datetime) -> Step:
    """A request did not become a run: it is as if the trigger had last fired with `previous`."""
    if trigger.last is not None and trigger.last.run_id == run_id:
        trigger = _with_due_time(replace(trigger, last=previous), now)
    return end(trigger, run_id, now)


def change(
    trigger: PipelineTrigger, *, enabled: bool, cooldown: timedelta, label: str, now: datetime
) -> PipelineTrigger:
    """The trigger with new settings: a firing that waits is due by the new cooldown, and none if it is disabled."""
    changed = replace(trigger, enabled=enabled, cooldown=cooldown, label=label)
    if not enabled:
        return replace(changed, deferred=None, overdue_since=None)
    return _with_due_time(changed, now)


def withdraw(decided: Decided, reason: str) -> Decided:
    """The decision, skipped after all: its run is not asked for, or was refused."""
    return replace(decided, decision=Decision.SKIPPED, reason=reason, run_id=None, due_at=None, fired_at=None)


def fate(outcome: RunOutcome) -> Fate:
    """What catalog's answer says about the run of a firing."""
    if not outcome.is_known:
        return Fate.LOST
    if outcome.is_rejected:
        return Fate.REFUSED
    return Fate.ENDED if outcome.status is not None and outcome.status.is_terminal else Fate.UNDER_WAY


def run_request(trigger: PipelineTrigger, firing: Firing) -> RunRequested:
    """The request for the run of a firing; said twice, it is still one run."""
    return RunRequested(
        event_id=derived_id("run.requested", firing.decision_id),
        occurred_at=firing.fired_at,
        pipeline=trigger.pipeline,
        trigger=trigger.label,
        dedupe_key=str(firing.decision_id),
        overlap=Overlap.QUEUE,
        pipeline_id=trigger.pipeline_id,
        asked_by=trigger.id,
    )


def repeated_request(trigger: PipelineTrigger, firing: Firing, now: datetime) -> RunRequested:
    """The request again, as an event of its own: JetStream would drop a repetition of the first as a duplicate."""
    event_id = derived_id("run.requested", firing.decision_id, now.isoformat())
    return run_request(trigger, firing).model_copy(update={"event_id": event_id, "occurred_at": now})


def announcement(decided: Decided, pipeline: str, occurred_at: datetime) -> TriggerDecided:
    """The event that tells of a decision."""
    return TriggerDecided(
        event_id=derived_id("trigger.decided", decided.id, decided.decision),
        occurred_at=occurred_at,
        decision_id=decided.id,
        trigger_id=decided.trigger_id,
        pipeline=pipeline,
        decision=decided.decision,
        reason=decided.reason,
        cause_id=decided.cause.id,
        run_id=decided.run_id,
        due_at=decided.due_at,
        coalesced_into=decided.coalesced_into,
    )


def _fire(trigger: PipelineTrigger, decision_id: UUID, now: datetime) -> Step:
    firing = Firing(decision_id, run_id_for(trigger.pipeline, str(decision_id)), now)
    return Step(replace(trigger, last=firing, waits_for=firing.run_id, deferred=None, overdue_since=None), fired=firing)


def _decision_id(trigger: PipelineTrigger, cause: Cause) -> UUID:
    return derived_id("decision", trigger.id, cause.id)


def _end_of_cooldown(trigger: PipelineTrigger) -> datetime | None:
    return None if trigger.last is None else trigger.last.fired_at + trigger.cooldown


def _with_due_time(trigger: PipelineTrigger, now: datetime) -> PipelineTrigger:
    if trigger.deferred is None:
        return trigger
    due_at = _end_of_cooldown(trigger) or now
    return _waiting(trigger, replace(trigger.deferred, due_at=due_at), now)


def _waiting(trigger: PipelineTrigger, deferred: Deferred, now: datetime) -> PipelineTrigger:
    overdue_since = None if trigger.waits_for is None else max(deferred.due_at, now)
    return replace(trigger, deferred=deferred, overdue_since=overdue_since)


def _why_it_waits(trigger: PipelineTrigger, due_at: datetime, now: datetime) -> str:
    reasons = []
    if now < due_at:
        reasons.append(f"the cooldown of {trigger.cooldown.total_seconds():g} s has not passed")
    if trigger.waits_for is not None:
        reasons.append(f"run {trigger.waits_for} of the last firing has not ended")
    return " and ".join(reasons)
