"""The trigger service: events come in, decisions are kept, runs are asked for."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, assert_never
from uuid import UUID

import asyncpg

from contracts.landing import FileLanded, FindZone
from contracts.messages import utc_now
from contracts.pipelines import FindPipeline, PipelineRemoved
from contracts.runs import (
    FindRunOutcome,
    RejectionReason,
    RunFinished,
    RunRejected,
    RunRequested,
    RunStatus,
)
from contracts.triggers import (
    CreateTrigger,
    DeleteTrigger,
    FindTrigger,
    FireTrigger,
    ListDecisions,
    ListTriggers,
    OneTrigger,
    TriggerDecided,
    TriggerDecision,
    TriggerDecisions,
    Triggers,
    UpdateTrigger,
)
from contracts.triggers import Trigger as ShownTrigger
from services.trigger import domain, firing, watches
from services.trigger.domain import Cause, Fate, PipelineTrigger
from services.trigger.store import decisions, states, triggers
from services.trigger.watches import LandingZoneUpload, PipelineSuccess, Watch
from shared.background import background, every
from shared.batches import Batches
from shared.bus import Bus, connect
from shared.database import Connection, database, transaction
from shared.due import when_due
from shared.errors import Conflict, NotFound
from shared.leases import Taker
from shared.outbox import relay
from shared.pages import cursor_after, fitting
from shared.settings import Settings

PATIENCE: Final = timedelta(minutes=1)
"""How long beyond its cooldown a firing waits for the end of a run before catalog is asked about that run."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Trigger:
    """Decides on each event of each trigger, and asks for the runs that follow from it."""

    db: asyncpg.Pool
    bus: Bus
    patience: timedelta

    # What is heard

    async def fire_on_files(self, events: Sequence[FileLanded]) -> None:
        """Fire the triggers that watch the zones in which files landed, or note why they wait."""
        causes: dict[str, list[Cause]] = defaultdict(list)
        for event in events:
            causes[watches.zone_source(event.namespace, event.zone)].append(Cause(event.event_id, event.subject))
        for source, of_source in causes.items():
            await firing.decide(self.db, source, of_source)

    async def follow_run(self, event: RunFinished) -> None:
        """Release the firings that waited for this run, and fire the triggers that watch its success."""
        source = watches.pipeline_source(event.pipeline)
        if not await states.concerned(self.db, source, event.run_id):
            return
        await firing.end(self.db, event.run_id)
        if event.status is not RunStatus.SUCCESS:
            return
        cause = Cause(event.event_id, event.subject)
        if event.dry_run:
            await firing.skip(self.db, source, cause, "a dry run fires nothing")
        else:
            await firing.decide(self.db, source, [cause])

    async def take_back_firing(self, event: RunRejected) -> None:
        """Note on the trigger that asked why its request did not become a run; remove it with its pipeline."""
        if event.reason is not RejectionReason.PIPELINE_REMOVED:
            await firing.refuse(self.db, event.run_id, f"{event.reason}: {event.message}")
            return
        async with transaction(self.db) as connection:
            trigger = await states.lock_asking(connection, event.run_id)
            if trigger is not None:
                await triggers.remove(connection, trigger.id, trigger.pipeline)

    async def remove_triggers(self, event: PipelineRemoved) -> None:
        """Remove the triggers of a pipeline that was deleted."""
        await triggers.remove_of_pipeline(self.db, event.pipeline_id)

    # What is asked

    async def create_trigger(self, query: CreateTrigger) -> ShownTrigger:
        """Make a trigger for a pipeline."""
        watch = watches.watch(query.type, query.config)
        pipeline = await self.bus.ask(FindPipeline(pipeline=query.pipeline))
        await self._find_watched(watch)
        async with transaction(self.db) as connection:
            await _refuse_cycle(connection, watch, query.pipeline, query.id)
            await triggers.create(connection, query, watch=watch, pipeline_id=pipeline.id, now=utc_now())
            return _found(await triggers.find(connection, query.id, query.pipeline), query.id, query.pipeline)

    async def list_triggers(self, query: ListTriggers) -> Triggers:
        """List the triggers of a pipeline."""
        page, total = await triggers.of_pipeline(self.db, query)
        if total == 0:
            await self.bus.ask(FindPipeline(pipeline=query.pipeline))
        shown = fitting(page)
        return Triggers(triggers=shown, total=total, next_cursor=cursor_after(query, shown, total))

    async def find_trigger(self, query: FindTrigger) -> ShownTrigger:
        """Show one trigger."""
        return await self._find(query)

    async def update_trigger(self, query: UpdateTrigger) -> ShownTrigger:
        """Change a trigger; one that is disabled skips the firing that waits."""
        watch = await self._new_watch(query)
        async with transaction(self.db) as connection:
            if watch is not None:
                await _refuse_cycle(connection, watch, query.pipeline, query.trigger_id)
            before = _found(await states.lock_one(connection, query.trigger_id), query.trigger_id, query.pipeline)
            if watch is None:
                shown = _found(await triggers.find(connection, before.id, query.pipeline), before.id, query.pipeline)
                watch = watches.watch(shown.type, shown.config)
            now = utc_now()
            changed = domain.change(
                before,
                enabled=before.enabled if query.enabled is None else query.enabled,
                cooldown=_cooldown(query, before),
                label=watch.label,
                now=now,
            )
            await triggers.change(connection, changed, watch=watch, now=now)
            await states.save(connection, changed)
            if before.deferred is not None and changed.deferred is None:
                await firing.withdraw(connection, before, before.deferred.decision_id, "the trigger was disabled", now)
            await states.notify_due(connection)
            return _found(await triggers.find(connection, before.id, before.pipeline), before.id, before.pipeline)

    async def delete_trigger(self, query: DeleteTrigger) -> None:
        """Remove a trigger with its decisions."""
        if not await triggers.remove(self.db, query.trigger_id, query.pipeline):
            raise _missing(query.trigger_id, query.pipeline)

    async def list_decisions(self, query: ListDecisions) -> TriggerDecisions:
        """Say what a trigger decided on each of its events, and why."""
        await self._find(query)
        page, total = await decisions.of_trigger(self.db, query)
        shown = fitting(page)
        return TriggerDecisions(decisions=shown, total=total, next_cursor=cursor_after(query, shown, total))

    async def fire_trigger(self, query: FireTrigger) -> TriggerDecision:
        """Fire a trigger by hand."""
        async with transaction(self.db) as connection:
            trigger = await states.lock_one(connection, query.trigger_id)
            if trigger is None or trigger.pipeline != query.pipeline:
                raise _missing(query.trigger_id, query.pipeline)
            step = domain.decide(trigger, Cause(query.event_id, "manual"), utc_now())
            await firing.keep(connection, [(trigger, step)])
            assert step.decided is not None
            decision = await decisions.find(connection, step.decided.id)
            assert decision is not None
            return decision

    # What is done without being told

    async def ask_about_overdue(self) -> None:
        """Ask catalog about runs for whose end a firing has waited too long, and record what was lost."""
        now = utc_now()
        for trigger in await states.take_overdue(self.db, now, self.patience):
            if trigger.waits_for is not None:
                await self._follow_outcome(trigger.id, trigger.waits_for)

    async def _follow_outcome(self, trigger_id: UUID, run_id: UUID) -> None:
        outcome = await self.bus.ask(FindRunOutcome(run_id=run_id))
        match domain.fate(outcome):
            case Fate.UNDER_WAY:
                return
            case Fate.ENDED:
                await firing.end(self.db, run_id)
            case Fate.REFUSED:
                await firing.refuse(self.db, run_id, "catalog rejected the request")
            case Fate.LOST:
                await firing.repeat_request(self.db, trigger_id, run_id)
            case fate:
                assert_never(fate)

    async def _find(self, query: OneTrigger) -> ShownTrigger:
        found = await triggers.find(self.db, query.trigger_id, query.pipeline)
        return _found(found, query.trigger_id, query.pipeline)

    async def _new_watch(self, query: UpdateTrigger) -> Watch | None:
        if query.config is None:
            return None
        watch = watches.watch((await self._find(query)).type, query.config)
        await self._find_watched(watch)
        return watch

    async def _find_watched(self, watch: Watch) -> None:
        match watch:
            case LandingZoneUpload():
                await self.bus.ask(FindZone(namespace=watch.namespace, name=watch.zone_name))
            case PipelineSuccess():
                await self.bus.ask(FindPipeline(pipeline=watch.upstream))
            case _:
                assert_never(watch)


async def _refuse_cycle(connection: Connection, watch: Watch, pipeline: str, trigger_id: UUID) -> None:
    if not isinstance(watch, PipelineSuccess):
        return
    # Two triggers that close a cycle only together are made one after the other.
    await triggers.lock_edges(connection)
    edges = await triggers.edges(connection, but=trigger_id)
    cycle = watches.cycle_closed_by(watch.upstream, pipeline, edges)
    if cycle is not None:
        raise Conflict(f"pipelines would trigger each other for ever: {' → '.join(cycle)}")


def _cooldown(query: UpdateTrigger, before: PipelineTrigger) -> timedelta:
    return before.cooldown if query.cooldown_seconds is None else timedelta(seconds=query.cooldown_seconds)


def _found(found: T | None, trigger_id: UUID, pipeline: str) -> T:
    if found is None:
        raise _missing(trigger_id, pipeline)
    return found


def _missing(trigger_id: UUID, pipeline: str) -> NotFound:
    return NotFound(f"no trigger {trigger_id} of pipeline {pipeline}")


def wire(bus: Bus, trigger: Trigger) -> Taker:
    """Register what the trigger service hears, says, asks and answers; give what it takes landed files from."""
    bus.hear(RunFinished, trigger.follow_run)
    bus.hear(RunRejected, trigger.take_back_firing)
    bus.hear(PipelineRemoved, trigger.remove_triggers)
    bus.say(RunRequested, TriggerDecided)
    bus.asks(FindPipeline, FindZone, FindRunOutcome)
    bus.answer(CreateTrigger, trigger.create_trigger)
    bus.answer(ListTriggers, trigger.list_triggers)
    bus.answer(FindTrigger, trigger.find_trigger)
    bus.answer(UpdateTrigger, trigger.update_trigger)
    bus.answer(DeleteTrigger, trigger.delete_trigger)
    bus.answer(ListDecisions, trigger.list_decisions)
    bus.answer(FireTrigger, trigger.fire_trigger)
    return bus.take(FileLanded)


@asynccontextmanager
async def serve(settings: Settings, *, patience: timedelta = PATIENCE) -> AsyncIterator[None]:
    """Run the trigger service until the block is left."""
    bus = connect(settings, "trigger")
    async with database(settings, "trigger", _MIGRATIONS) as db:
        trigger = Trigger(db, bus, patience)
        taker = wire(bus, trigger)
        files = Batches(bus, FileLanded, trigger.fire_on_files, lease_seconds=settings.run_lease_seconds)

        async def release() -> None:
            work = partial(firing.release_due, db)
            await when_due(db, "trigger_due", work, at_most_seconds=settings.tick_interval_seconds)

        async def ask() -> None:
            pause = min(settings.tick_interval_seconds, patience.total_seconds())
            await every(pause, trigger.ask_about_overdue)

        async with bus.running(), relay(db, bus), background(lambda: files.run(taker), release, ask):
            yield
