"""Triggers on the real stack; the test is catalog, ingest and the user."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.messages import Query, utc_now
from contracts.runs import Overlap, RejectionReason, RunOutcome, RunStatus
from contracts.triggers import (
    CreateTrigger,
    Decision,
    DeleteTrigger,
    FindTrigger,
    FireTrigger,
    ListDecisions,
    ListTriggers,
    Trigger,
    TriggerDecision,
    TriggerType,
    UpdateTrigger,
)
from infra.stacks.stack import Stack
from services.trigger.service import serve
from shared.errors import Conflict, Invalid, NotFound
from shared.settings import Settings
from tests.asking import Neighbours, neighbours, run_of
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def they(stack: Stack) -> AsyncIterator[Neighbours]:
    async with neighbours(stack.settings) as they:
        yield they


@asynccontextmanager
async def serving(settings: Settings, they: Neighbours, **patience: Any) -> AsyncIterator[None]:
    async with serve(settings, **patience):
        there = ListTriggers(**path(they.pipeline()))
        await eventually(lambda: they.gateway.ask(there))
        yield


@pytest.fixture
async def service(stack: Stack, they: Neighbours) -> AsyncIterator[None]:
    async with serving(stack.settings, they):
        yield


def path(pipeline: str) -> dict[str, Any]:
    namespace, layer, name = pipeline.split(".")
    return {"namespace": namespace, "layer": layer, "name": name}


async def upload_trigger(they: Neighbours, pipeline: str, zone: str, **settings: Any) -> Trigger:
    config = {"namespace": "default", "zone_name": zone}
    kind = TriggerType.LANDING_ZONE_UPLOAD
    return await they.gateway.ask(CreateTrigger(**path(pipeline), type=kind, config=config, **settings))


async def success_trigger(they: Neighbours, pipeline: str, upstream: str, **settings: Any) -> Trigger:
    namespace, layer, name = upstream.split(".")
    config = {"namespace": namespace, "layer": layer, "pipeline": name}
    kind = TriggerType.PIPELINE_SUCCESS
    return await they.gateway.ask(CreateTrigger(**path(pipeline), type=kind, config=config, **settings))


async def shown(they: Neighbours, pipeline: str, trigger: Trigger) -> Trigger:
    return await they.gateway.ask(FindTrigger(**path(pipeline), trigger_id=trigger.id))


async def decisions(they: Neighbours, pipeline: str, trigger: Trigger, count: int = 1) -> list[TriggerDecision]:
    """What a trigger decided, the newest first, once it decided so often."""

    async def enough() -> list[TriggerDecision] | None:
        page = await they.gateway.ask(ListDecisions(**path(pipeline), trigger_id=trigger.id, limit=200))
        return page.decisions if page.total >= count else None

    return await eventually(enough)


async def is_gone(they: Neighbours, pipeline: str, trigger: Trigger) -> bool:
    try:
        await shown(they, pipeline, trigger)
    except NotFound:
        return True
    return False


# Making and showing


async def test_a_trigger_is_shown_listed_changed_and_removed(service: None, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()

    made = await upload_trigger(they, pipeline, zone, cooldown_seconds=30)

    assert made.pipeline_id == they.pipelines[pipeline]
    assert made.config == {"namespace": "default", "zone_name": zone}
    assert made.enabled
    assert made.cooldown_seconds == 30
    assert made.last_run_id is None
    assert made.last_triggered_at is None
    listed = await they.gateway.ask(ListTriggers(**path(pipeline)))
    assert listed.triggers == [made]
    assert listed.total == 1
    other = they.zone()
    changed = await they.gateway.ask(
        UpdateTrigger(
            **path(pipeline),
            trigger_id=made.id,
            cooldown_seconds=5,
            config={"namespace": "default", "zone_name": other},
        )
    )
    assert changed.config["zone_name"] == other
    assert changed.cooldown_seconds == 5
    assert changed.updated_at > made.updated_at
    await they.gateway.ask(DeleteTrigger(**path(pipeline), trigger_id=made.id))
    assert await is_gone(they, pipeline, made)
    with pytest.raises(NotFound):
        await they.gateway.ask(DeleteTrigger(**path(pipeline), trigger_id=made.id))


async def test_asking_twice_makes_one_trigger(service: None, they: Neighbours) -> None:
    pipeline, zone, trigger_id = they.pipeline(), they.zone(), uuid4()

    first = await upload_trigger(they, pipeline, zone, id=trigger_id)
    again = await upload_trigger(they, pipeline, zone, id=trigger_id)

    assert first == again
    assert (await they.gateway.ask(ListTriggers(**path(pipeline)))).total == 1


async def test_a_trigger_belongs_to_its_pipeline_only(service: None, they: Neighbours) -> None:
    pipeline, other = they.pipeline(), they.pipeline()
    trigger = await upload_trigger(they, pipeline, they.zone())

    asked: list[Query[Any]] = [
        FindTrigger(**path(other), trigger_id=trigger.id),
        UpdateTrigger(**path(other), trigger_id=trigger.id, enabled=False),
        UpdateTrigger(**path(other), trigger_id=trigger.id, config=trigger.config),
        DeleteTrigger(**path(other), trigger_id=trigger.id),
        ListDecisions(**path(other), trigger_id=trigger.id),
        FireTrigger(**path(other), trigger_id=trigger.id),
        ListTriggers(**path("default.bronze.nowhere")),
    ]
    for query in asked:
        with pytest.raises(NotFound):
            await they.gateway.ask(query)
    assert (await shown(they, pipeline, trigger)).enabled


async def test_what_a_trigger_refers_to_must_exist(service: None, they: Neighbours) -> None:
    pipeline = they.pipeline()

    with pytest.raises(NotFound, match=r"default\.bronze\.nowhere"):
        await upload_trigger(they, "default.bronze.nowhere", they.zone())
    with pytest.raises(NotFound, match="no landing zone 'nowhere'"):
        await upload_trigger(they, pipeline, "nowhere")
    with pytest.raises(NotFound, match=r"default\.silver\.nowhere"):
        await success_trigger(they, pipeline, "default.silver.nowhere")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # asking for a type that is none
async def test_a_type_or_config_that_is_not_known_is_refused_by_name(service: None, they: Neighbours) -> None:
    pipeline = they.pipeline()
    webhook = CreateTrigger.model_construct(**path(pipeline), type="webhook", config={}, id=uuid4())

    with pytest.raises(Invalid, match="'landing_zone_upload' or 'pipeline_success'"):
        await they.gateway.ask(webhook)
    with pytest.raises(Invalid, match=r"config\.zone: Extra inputs are not permitted"):
        await they.gateway.ask(
            CreateTrigger(
                **path(pipeline),
                type=TriggerType.LANDING_ZONE_UPLOAD,
                config={"namespace": "default", "zone_name": "a", "zone": "a"},
            )
        )


async def test_a_cycle_is_refused_and_named(service: None, they: Neighbours) -> None:
    bronze, silver, gold = they.pipeline(), they.pipeline("silver"), they.pipeline("gold")
    await success_trigger(they, silver, bronze)
    last = await success_trigger(they, gold, silver)

    with pytest.raises(Conflict, match=f"{gold} → {bronze} → {silver} → {gold}"):
        await success_trigger(they, bronze, gold)
    namespace, layer, name = gold.split(".")
    config = {"namespace": namespace, "layer": layer, "pipeline": name}
    with pytest.raises(Conflict, match=f"{gold} → {gold}"):
        await they.gateway.ask(UpdateTrigger(**path(gold), trigger_id=last.id, config=config))


async def test_of_two_triggers_made_at_once_that_close_a_cycle_one_is_refused(
    stack: Stack, service: None, they: Neighbours
) -> None:
    async with serving(stack.settings, they):
        for _ in range(10):
            one, other = they.pipeline(), they.pipeline()

            made = await asyncio.gather(
                success_trigger(they, one, other), success_trigger(they, other, one), return_exceptions=True
            )

            assert sorted(type(result).__name__ for result in made) == ["Conflict", "Trigger"]


# Firing


async def test_a_file_that_lands_asks_for_a_run(service: None, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)

    landed = await they.land(zone)

    [request] = await they.requested(pipeline, 1)
    assert request.trigger == f"trigger:lz_upload:default/{zone}"
    assert request.pipeline_id == trigger.pipeline_id
    assert request.asked_by == trigger.id
    assert request.overlap is Overlap.QUEUE
    [decision] = await decisions(they, pipeline, trigger)
    assert decision.decision is Decision.FIRED
    assert decision.event == "file.landed"
    assert decision.event_id == landed.event_id
    assert decision.run_id == run_of(request)
    assert request.dedupe_key == str(decision.id)
    now = await shown(they, pipeline, trigger)
    assert now.last_run_id == decision.run_id
    assert now.last_triggered_at == decision.fired_at == decision.created_at
    [told] = await they.decided(pipeline, 1)
    assert told.decision_id == decision.id
    assert told.cause_id == landed.event_id


async def test_a_file_in_another_zone_fires_nothing(service: None, they: Neighbours) -> None:
    pipeline, zone, other = they.pipeline(), they.zone(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)

    await they.land(other)
    await they.land(zone)

    assert len(await decisions(they, pipeline, trigger)) == 1


async def test_an_event_that_comes_again_is_decided_once_by_several_replicas(
    stack: Stack, service: None, they: Neighbours
) -> None:
    pipeline, zone, event_id = they.pipeline(), they.zone(), uuid4()
    trigger = await upload_trigger(they, pipeline, zone)
    async with serving(stack.settings, they):
        landed = await they.land(zone, event_id=event_id)
        body = landed.model_dump_json().encode()
        await asyncio.gather(
            *(they.ingest.send("file.landed", body, {"Nats-Msg-Id": str(uuid4())}, stored=True) for _ in range(20))
        )
        await they.land(zone)

        made = await decisions(they, pipeline, trigger, 2)

    assert [decision.decision for decision in made] == [Decision.DEFERRED, Decision.FIRED]
    await they.requested(pipeline, 1)


async def test_a_firing_within_the_cooldown_waits_for_its_end_and_takes_along_what_comes(
    service: None, they: Neighbours
) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone, cooldown_seconds=3)

    await asyncio.gather(*(they.land(zone) for _ in range(20)))
    await decisions(they, pipeline, trigger, 20)
    [first] = await they.requested(pipeline, 1)
    await they.finish(run_of(first), pipeline)
    ended_at = utc_now()
    first, second = await they.requested(pipeline, 2)

    made = await decisions(they, pipeline, trigger, 20)
    assert [decision.decision for decision in reversed(made)] == [
        Decision.FIRED,
        Decision.DEFERRED,
        *[Decision.COALESCED] * 18,
    ]
    deferred = made[-2]
    assert deferred.run_id == run_of(second)
    assert deferred.fired_at is not None
    assert made[-1].fired_at is not None
    assert deferred.due_at == made[-1].fired_at + timedelta(seconds=3)
    # At that time, or at the end of the run, and not with the next tick, which is half a minute away.
    assert deferred.fired_at >= deferred.due_at
    assert deferred.fired_at - max(deferred.due_at, ended_at) < timedelta(seconds=15)
    assert {decision.coalesced_into for decision in made[:18]} == {deferred.id}
    assert {decision.run_id for decision in made[:18]} == {deferred.run_id}


async def test_a_thousand_files_in_a_burst_make_a_handful_of_runs(service: None, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)

    for _ in range(10):
        await asyncio.gather(*(they.land(zone) for _ in range(100)))
    await they.decided(pipeline, 1000, within=200)
    [first] = await they.requested(pipeline, 1)
    await they.finish(run_of(first), pipeline)
    await they.requested(pipeline, 2)

    page = await they.gateway.ask(ListDecisions(**path(pipeline), trigger_id=trigger.id, limit=1))
    assert page.total == 1000
    assert page.next_cursor is not None


async def test_a_run_that_goes_on_holds_the_next_one_back_until_it_ends(service: None, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)
    await they.land(zone)
    await they.land(zone)
    [first] = await they.requested(pipeline, 1)
    await decisions(they, pipeline, trigger, 2)

    await they.finish(run_of(first), pipeline, RunStatus.FAILED)

    _, second = await they.requested(pipeline, 2)
    assert (await shown(they, pipeline, trigger)).last_run_id == run_of(second)


async def test_a_firing_that_waits_survives_a_restart(stack: Stack, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    async with serving(stack.settings, they):
        trigger = await upload_trigger(they, pipeline, zone, cooldown_seconds=1)
        await they.land(zone)
        [first] = await they.requested(pipeline, 1)
        await they.finish(run_of(first), pipeline)
        await they.land(zone)
        await decisions(they, pipeline, trigger, 2)

    async with serving(stack.settings, they), serving(stack.settings, they):
        await they.requested(pipeline, 2)

        await they.land(zone)
        newest = (await decisions(they, pipeline, trigger, 3))[0]
        assert newest.decision is Decision.DEFERRED
        assert len(they.requests(pipeline)) == 2


async def test_a_success_fires_and_no_other_end_does(service: None, they: Neighbours) -> None:
    upstream, pipeline = they.pipeline(), they.pipeline("silver")
    trigger = await success_trigger(they, pipeline, upstream)

    await they.finish(uuid4(), upstream, RunStatus.FAILED)
    await they.finish(uuid4(), upstream, RunStatus.CANCELLED)
    await they.finish(uuid4(), upstream, dry_run=True)
    finished = await they.finish(uuid4(), upstream)

    [request] = await they.requested(pipeline, 1)
    assert request.trigger == f"trigger:pipeline_success:{upstream.replace('.', '/')}"
    made = await decisions(they, pipeline, trigger, 2)
    assert {(decision.decision, decision.reason) for decision in made if decision.event_id != finished.event_id} == {
        (Decision.SKIPPED, "a dry run fires nothing")
    }


async def test_firing_by_hand_is_an_event_like_others(service: None, they: Neighbours) -> None:
    pipeline = they.pipeline()
    trigger = await upload_trigger(they, pipeline, they.zone())
    by_hand = FireTrigger(**path(pipeline), trigger_id=trigger.id)

    fired = await they.gateway.ask(by_hand)
    again = await they.gateway.ask(by_hand)
    next_one = await they.gateway.ask(FireTrigger(**path(pipeline), trigger_id=trigger.id))

    assert fired.decision is Decision.FIRED
    assert fired.event == "manual"
    assert again == fired
    assert next_one.decision is Decision.DEFERRED
    [request] = await they.requested(pipeline, 1)
    assert run_of(request) == fired.run_id


# Not firing


async def test_disabling_skips_what_waits_and_what_comes(service: None, they: Neighbours) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)
    await they.land(zone)
    [request] = await they.requested(pipeline, 1)
    waiting = await they.land(zone)
    await decisions(they, pipeline, trigger, 2)

    await they.gateway.ask(UpdateTrigger(**path(pipeline), trigger_id=trigger.id, enabled=False))
    await they.finish(run_of(request), pipeline)
    await they.land(zone)

    late, skipped, _ = await decisions(they, pipeline, trigger, 3)
    assert skipped.event_id == waiting.event_id
    assert skipped.decision is Decision.SKIPPED
    assert skipped.run_id is None
    assert late.reason == "the trigger is disabled"
    told = [one.decision for one in await they.decided(pipeline, 4)]
    assert told.count(Decision.SKIPPED) == 2
    await they.gateway.ask(UpdateTrigger(**path(pipeline), trigger_id=trigger.id, enabled=True))
    await they.land(zone)
    await they.requested(pipeline, 2)


async def test_an_unpublished_pipeline_is_noted_and_tried_again_by_the_next_event(
    service: None, they: Neighbours
) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone, cooldown_seconds=3600)
    await they.land(zone)
    [request] = await they.requested(pipeline, 1)

    await they.reject(request, RejectionReason.UNPUBLISHED)

    async def noted() -> TriggerDecision | None:
        [decision] = await decisions(they, pipeline, trigger)
        return decision if decision.decision is Decision.SKIPPED else None

    decision = await eventually(noted)
    assert decision.reason == f"unpublished: {pipeline} is refused"
    assert (await shown(they, pipeline, trigger)).last_run_id is None
    await they.land(zone)
    await they.requested(pipeline, 2)


@pytest.mark.parametrize("heard", ["pipeline.removed", "run.rejected"])
async def test_a_removed_pipeline_takes_its_triggers_with_it(service: None, they: Neighbours, heard: str) -> None:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)
    bystander = await upload_trigger(they, they.pipeline(), zone)
    await they.land(zone)
    [request] = await they.requested(pipeline, 1)

    if heard == "pipeline.removed":
        await they.remove(pipeline)
    else:
        await they.reject(request, RejectionReason.PIPELINE_REMOVED)

    await eventually(lambda: is_gone(they, pipeline, trigger))
    other = next(name for name, pipeline_id in they.pipelines.items() if pipeline_id == bystander.pipeline_id)
    assert not await is_gone(they, other, bystander)


# Asking about what was lost


async def waiting_firing(they: Neighbours) -> tuple[str, UUID]:
    pipeline, zone = they.pipeline(), they.zone()
    trigger = await upload_trigger(they, pipeline, zone)
    await they.land(zone)
    await they.land(zone)
    await decisions(they, pipeline, trigger, 2)
    [first] = await they.requested(pipeline, 1)
    return pipeline, run_of(first)


async def test_a_lost_end_is_asked_for(stack: Stack, they: Neighbours) -> None:
    async with serving(stack.settings, they, patience=timedelta(seconds=0.3)):
        pipeline, run_id = await waiting_firing(they)
        await eventually(lambda: run_id in they.asked_outcomes)
        assert len(they.requests(pipeline)) == 1

        they.outcomes[run_id] = RunOutcome(status=RunStatus.FAILED, is_known=True)

        await they.requested(pipeline, 2)


async def test_a_lost_request_is_repeated_for_the_same_run(stack: Stack, they: Neighbours) -> None:
    async with serving(stack.settings, they, patience=timedelta(seconds=0.3)):
        pipeline, run_id = await waiting_firing(they)

        they.outcomes[run_id] = RunOutcome(status=None, is_known=False)
        await eventually(lambda: len(they.requests(pipeline)) > 1)
        they.outcomes[run_id] = RunOutcome(status=RunStatus.RUNNING, is_known=True)

        assert {run_of(request) for request in they.requests(pipeline)} == {run_id}
        assert len({request.event_id for request in they.requests(pipeline)}) > 1
