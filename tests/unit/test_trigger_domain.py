"""The rules of triggers: cooldown, waiting, joining, refusals, cycles."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.runs import Overlap, RunOutcome, RunRequested, RunStatus, run_id_for
from contracts.triggers import Decision, TriggerDecided, TriggerType
from services.trigger.domain import (
    Cause,
    Fate,
    Firing,
    PipelineTrigger,
    Step,
    change,
    decide,
    end,
    fate,
    refuse,
    release,
    repeated_request,
    skip,
    withdraw,
)
from services.trigger.watches import LandingZoneUpload, PipelineSuccess, cycle_closed_by, watch
from shared.errors import Invalid

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_trigger(cooldown_seconds: float = 0, *, enabled: bool = True) -> PipelineTrigger:
    return PipelineTrigger(
        id=UUID(int=1),
        pipeline_id=UUID(int=2),
        pipeline="default.bronze.flights",
        label="trigger:lz_upload:default/flights",
        enabled=enabled,
        cooldown=timedelta(seconds=cooldown_seconds),
    )


def a_file() -> Cause:
    return Cause(uuid4(), "file.landed")


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def last_run(step: Step) -> UUID:
    assert step.trigger.last is not None
    return step.trigger.last.run_id


def test_the_first_event_fires_at_once() -> None:
    step = decide(a_trigger(60), a_file(), NOON)

    assert step.decided is not None
    assert step.decided.decision is Decision.FIRED
    assert step.decided.fired_at == NOON
    request, told = step.events
    assert isinstance(request, RunRequested)
    assert request.dedupe_key == str(step.decided.id)
    assert request.overlap is Overlap.QUEUE
    assert request.trigger == "trigger:lz_upload:default/flights"
    assert request.pipeline_id == UUID(int=2)
    assert request.asked_by == UUID(int=1)
    assert isinstance(told, TriggerDecided)
    assert told.run_id == step.decided.run_id == run_id_for("default.bronze.flights", str(step.decided.id))


def test_the_same_event_is_the_same_decision_and_the_same_run() -> None:
    file = a_file()

    assert decide(a_trigger(), file, NOON).decided == decide(a_trigger(), file, NOON).decided
    assert decide(a_trigger(), file, NOON).events == decide(a_trigger(), file, NOON).events


def test_an_event_within_the_cooldown_waits_for_its_end() -> None:
    fired = decide(a_trigger(60), a_file(), NOON)
    ended = end(fired.trigger, last_run(fired), after(5))

    step = decide(ended.trigger, a_file(), after(10))

    assert step.decided is not None
    assert step.decided.decision is Decision.DEFERRED
    assert step.decided.due_at == after(60)
    assert step.decided.run_id == run_id_for("default.bronze.flights", str(step.decided.id))
    assert step.decided.reason == "the cooldown of 60 s has not passed"
    assert step.fired is None
    assert release(step.trigger, after(59.999)).fired is None
    assert release(step.trigger, after(60)).fired == Firing(step.decided.id, step.decided.run_id, after(60))


def test_an_event_while_the_run_goes_on_waits_for_its_end_even_without_a_cooldown() -> None:
    fired = decide(a_trigger(0), a_file(), NOON)

    step = decide(fired.trigger, a_file(), after(10))

    assert step.decided is not None
    assert step.decided.decision is Decision.DEFERRED
    assert step.decided.due_at == NOON
    assert step.trigger.overdue_since == after(10)
    assert release(step.trigger, after(3600)).fired is None
    released = end(step.trigger, last_run(fired), after(20))
    assert released.fired is not None
    assert released.fired.decision_id == step.decided.id
    assert released.trigger.waits_for == step.decided.run_id
    assert released.trigger.overdue_since is None


def test_what_waits_for_both_goes_with_the_later_one() -> None:
    fired = decide(a_trigger(60), a_file(), NOON)
    waiting = decide(fired.trigger, a_file(), after(1))
    assert waiting.decided is not None
    assert "cooldown" in waiting.decided.reason
    assert "has not ended" in waiting.decided.reason
    assert waiting.trigger.overdue_since == after(60)

    ended_early = end(waiting.trigger, last_run(fired), after(30))
    ended_late = end(waiting.trigger, last_run(fired), after(90))

    assert ended_early.fired is None
    assert ended_early.trigger.waits_for_time_only
    assert release(ended_early.trigger, after(60)).fired is not None
    assert ended_late.fired is not None


def test_while_a_firing_waits_events_join_it_whatever_the_time() -> None:
    fired = decide(a_trigger(60), a_file(), NOON)
    waiting = decide(fired.trigger, a_file(), after(1))
    assert waiting.decided is not None

    for seconds in (2, 59, 61, 7200):
        joined = decide(waiting.trigger, a_file(), after(seconds))
        assert joined.decided is not None
        assert joined.decided.decision is Decision.COALESCED
        assert joined.decided.coalesced_into == waiting.decided.id
        assert joined.trigger == waiting.trigger


def test_the_end_of_another_run_changes_nothing() -> None:
    fired = decide(a_trigger(), a_file(), NOON)
    waiting = decide(fired.trigger, a_file(), after(1))

    assert end(waiting.trigger, uuid4(), after(2)) == Step(waiting.trigger)


def test_a_disabled_trigger_skips_and_says_so() -> None:
    step = decide(a_trigger(enabled=False), a_file(), NOON)

    assert step.decided is not None
    assert step.decided.decision is Decision.SKIPPED
    assert step.decided.reason == "the trigger is disabled"
    assert [type(event) for event in step.events] == [TriggerDecided]


def test_disabling_drops_the_firing_that_waits_and_keeps_the_run_in_mind() -> None:
    fired = decide(a_trigger(), a_file(), NOON)
    waiting = decide(fired.trigger, a_file(), after(1))
    assert waiting.decided is not None

    disabled = change(waiting.trigger, enabled=False, cooldown=timedelta(0), label="x", now=after(2))
    skipped = withdraw(waiting.decided, "the trigger was disabled")

    assert disabled.deferred is None
    assert disabled.overdue_since is None
    assert disabled.waits_for == last_run(fired)
    assert skipped.decision is Decision.SKIPPED
    assert skipped.run_id is None


def test_a_new_cooldown_moves_the_firing_that_waits() -> None:
    fired = decide(a_trigger(60), a_file(), NOON)
    waiting = decide(fired.trigger, a_file(), after(1))

    shorter = change(waiting.trigger, enabled=True, cooldown=timedelta(seconds=10), label="x", now=after(2))

    assert shorter.deferred is not None
    assert shorter.deferred.due_at == after(10)


def test_a_refused_request_is_no_firing() -> None:
    first = decide(a_trigger(60), a_file(), NOON)
    idle = end(first.trigger, last_run(first), after(5))
    second = decide(idle.trigger, a_file(), after(100))
    waiting = decide(second.trigger, a_file(), after(101))

    refused = refuse(waiting.trigger, last_run(second), first.trigger.last, after(102))

    assert refused.fired is not None, "the cooldown of the firing before has passed"
    assert refused.fired.fired_at == after(102)


def test_after_a_refused_first_request_the_next_event_tries_again() -> None:
    fired = decide(a_trigger(3600), a_file(), NOON)

    refused = refuse(fired.trigger, last_run(fired), None, after(1))
    again = decide(refused.trigger, a_file(), after(2))

    assert refused.trigger.last is None
    assert again.decided is not None
    assert again.decided.decision is Decision.FIRED


def test_a_refusal_heard_twice_is_boring_the_second_time() -> None:
    fired = decide(a_trigger(), a_file(), NOON)
    refused = refuse(fired.trigger, last_run(fired), None, after(1))
    again = decide(refused.trigger, a_file(), after(2))

    assert refuse(again.trigger, last_run(fired), None, after(3)) == Step(again.trigger)


def test_a_repeated_request_is_a_new_event_for_the_same_run() -> None:
    fired = decide(a_trigger(), a_file(), NOON)
    assert fired.trigger.last is not None

    repeated = repeated_request(fired.trigger, fired.trigger.last, after(90))

    assert repeated.event_id != fired.events[0].event_id
    assert repeated.dedupe_key == str(fired.trigger.last.decision_id)


def test_a_dry_run_leaves_a_skip() -> None:
    step = skip(a_trigger(), a_file(), "a dry run fires nothing", NOON)

    assert step.trigger == a_trigger()
    assert step.decided is not None
    assert step.decided.decision is Decision.SKIPPED


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (RunOutcome(status=None, is_known=False), Fate.LOST),
        (RunOutcome(status=None, is_known=True, is_rejected=True), Fate.REFUSED),
        (RunOutcome(status=RunStatus.PENDING, is_known=True), Fate.UNDER_WAY),
        (RunOutcome(status=RunStatus.RUNNING, is_known=True), Fate.UNDER_WAY),
        (RunOutcome(status=RunStatus.FAILED, is_known=True), Fate.ENDED),
        (RunOutcome(status=RunStatus.SUCCESS, is_known=True, dry_run=True), Fate.ENDED),
    ],
)
def test_what_catalog_says_of_a_run_is_understood(outcome: RunOutcome, expected: Fate) -> None:
    assert fate(outcome) is expected


class World:
    """A trigger, the clock, and what became of each event."""

    def __init__(self, cooldown_seconds: int) -> None:
        self.trigger = a_trigger(cooldown_seconds)
        self.now = NOON
        self.is_under_way = False
        self.firings: list[Firing] = []
        self.refused: set[UUID] = set()
        self.decisions: dict[UUID, Step] = {}
        self.heard_at: dict[UUID, datetime] = {}

    def keep(self, step: Step) -> None:
        self.trigger = step.trigger
        if step.fired is not None:
            assert not self.is_under_way, "a run is asked for while the last one goes on"
            self.firings.append(step.fired)
            self.is_under_way = True

    def land(self) -> None:
        file = a_file()
        step = decide(self.trigger, file, self.now)
        assert step.decided is not None
        self.decisions[step.decided.id] = step
        self.heard_at[step.decided.id] = self.now
        self.keep(step)

    def finish(self) -> None:
        if self.is_under_way:
            self.is_under_way = False
            self.keep(end(self.trigger, self.firings[-1].run_id, self.now))

    def reject(self) -> None:
        if self.is_under_way:
            self.is_under_way = False
            run_id = self.firings[-1].run_id
            self.refused.add(run_id)
            kept = [firing for firing in self.firings if firing.run_id not in self.refused]
            self.keep(refuse(self.trigger, run_id, kept[-1] if kept else None, self.now))

    def look(self) -> None:
        self.keep(release(self.trigger, self.now))

    def drain(self) -> None:
        """Let the run end and the time pass until nothing waits any more."""
        for _ in range(3):
            self.finish()
            self.now += self.trigger.cooldown + timedelta(seconds=1)
            self.look()
        self.finish()


actions = st.one_of(
    st.just("land"), st.just("land"), st.just("finish"), st.just("reject"), st.just("look"), st.integers(1, 90)
)


@given(st.sampled_from([0, 1, 30, 60]), st.lists(actions, max_size=60))
def test_no_event_is_dropped_and_runs_are_never_closer_than_the_cooldown(
    cooldown_seconds: int, happenings: list[str | int]
) -> None:
    world = World(cooldown_seconds)

    for happening in happenings:
        if isinstance(happening, int):
            world.now += timedelta(seconds=happening)
        else:
            getattr(world, happening)()
    world.drain()

    fired = {firing.decision_id: firing for firing in world.firings}
    for decision_id, step in world.decisions.items():
        assert step.decided is not None
        covering = fired[step.decided.coalesced_into or decision_id]
        assert covering.fired_at >= world.heard_at[decision_id], "an event was answered by a run asked for before it"
    accepted = [firing.fired_at for firing in world.firings if firing.run_id not in world.refused]
    for earlier, later in pairwise(accepted):
        assert later - earlier >= timedelta(seconds=cooldown_seconds)
    assert len(fired) == len(world.firings), "a decision asked for two runs"


@given(st.integers(2, 200))
def test_a_burst_makes_two_runs(files: int) -> None:
    world = World(0)

    for _ in range(files):
        world.land()
    world.drain()

    assert len(world.firings) == 2


def test_an_upload_is_watched_by_namespace_and_zone() -> None:
    found = watch(TriggerType.LANDING_ZONE_UPLOAD, {"namespace": "default", "zone_name": "orders"})

    assert isinstance(found, LandingZoneUpload)
    assert found.source == "zone:default/orders"
    assert found.label == "trigger:lz_upload:default/orders"


def test_a_success_is_watched_by_the_pipelines_name() -> None:
    found = watch(TriggerType.PIPELINE_SUCCESS, {"namespace": "default", "layer": "bronze", "pipeline": "orders"})

    assert isinstance(found, PipelineSuccess)
    assert found.upstream == "default.bronze.orders"
    assert found.label == "trigger:pipeline_success:default/bronze/orders"


def test_a_config_with_a_wrong_key_names_it() -> None:
    with pytest.raises(Invalid, match=r"config\.zone_name: Field required.*config\.zone: Extra inputs"):
        watch(TriggerType.LANDING_ZONE_UPLOAD, {"namespace": "default", "zone": "orders"})


def test_a_pipeline_that_triggers_itself_is_a_cycle() -> None:
    assert cycle_closed_by("a", "a", []) == ("a", "a")


def test_a_cycle_over_several_pipelines_is_named() -> None:
    edges = [("a", "b"), ("b", "c"), ("b", "x"), ("x", "b")]

    assert cycle_closed_by("c", "a", edges) == ("c", "a", "b", "c")


def test_a_diamond_is_no_cycle() -> None:
    assert cycle_closed_by("b", "d", [("a", "b"), ("a", "c"), ("c", "d")]) is None


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_edges_that_are_let_in_one_after_the_other_never_form_a_cycle(wanted: list[tuple[int, int]]) -> None:
    edges: list[tuple[str, str]] = []
    for before, after_ in wanted:
        if cycle_closed_by(str(before), str(after_), edges) is None:
            edges.append((str(before), str(after_)))

    remaining = set(edges)
    while remaining:
        sources = {edge for edge in remaining if not any(other[1] == edge[0] for other in remaining)}
        assert sources, f"a cycle among {remaining}"
        remaining -= sources


def test_a_trigger_without_a_firing_that_waits_has_nothing_to_release() -> None:
    trigger = replace(a_trigger(), last=Firing(uuid4(), uuid4(), NOON))

    assert release(trigger, after(60)) == Step(trigger)
