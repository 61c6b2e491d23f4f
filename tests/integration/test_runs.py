"""Catalog keeps the run protocol: here the test is its runner and everybody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.files import WriteCodeFile
from contracts.names import Qualified
from contracts.namespaces import ListNamespaces
from contracts.pipelines import (
    CreatePipeline,
    DeletePipeline,
    PublishPipeline,
    ValidatePipeline,
    Validation,
)
from contracts.quality import ListQualityResults
from contracts.reports import AttemptReport, ColumnChange, QualityResult, TableChanges
from contracts.runs import (
    AddressRunLogs,
    Attempt,
    AttemptFinished,
    CancelRun,
    CheckAttempt,
    ClaimReason,
    ClaimRun,
    EndRun,
    ErrorKind,
    FindRun,
    FindRunOutcome,
    ListRuns,
    Over,
    Phase,
    RejectionReason,
    RequestRun,
    RetryRun,
    Run,
    RunCancel,
    RunFinished,
    RunProgressed,
    RunQueued,
    RunRejected,
    RunRequested,
    RunStarted,
    RunStatus,
    Superseded,
    WrittenTable,
    run_id_for,
)
from contracts.tables import TableChanged
from infra.stacks.stack import Stack
from services.catalog.code.domain import MAX_FILES
from services.catalog.service import serve
from shared.bus import Bus
from shared.errors import Conflict, NotFound
from shared.object_store import ObjectStore, object_store
from shared.settings import Settings
from tests.buses import playing_all
from tests.waiting import eventually


@dataclass
class World:
    """Everybody who speaks with catalog, and what they heard."""

    bus: Bus
    objects: ObjectStore
    heard: list[Any] = field(default_factory=list)

    def of(self, kind: type[Any], run_id: UUID) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind) and event.run_id == run_id]

    async def pipeline(self, *, publish: bool = True) -> str:
        name = f"p_{uuid4().hex[:8]}"
        await self.bus.ask(CreatePipeline(namespace="default", layer="bronze", name=name))
        if publish:
            await self.bus.ask(PublishPipeline(pipeline=f"default.bronze.{name}"))
        return f"default.bronze.{name}"

    async def request(self, pipeline: str, **facts: Any) -> UUID:
        request = RunRequested(pipeline=pipeline, trigger=facts.pop("trigger", "manual"), **facts)
        return (await self.bus.ask(RequestRun(request=request))).run_id

    async def queued(self, run_id: UUID, queue_number: int = 1) -> RunQueued:
        def found() -> RunQueued | None:
            return next((one for one in self.of(RunQueued, run_id) if one.queue_number == queue_number), None)

        return await eventually(found)

    async def claim(self, run_id: UUID, claim: str = "c1", reason: str = "delivery", **facts: Any) -> Any:
        facts = {"queue_number": 1, "head": "7", **facts}
        answer = await self.bus.ask(ClaimRun(run_id=run_id, delivery=claim, reason=ClaimReason(reason), **facts))
        return answer.claim

    async def finish(self, run_id: UUID, attempt: int, status: RunStatus, **facts: Any) -> None:
        await self.bus.publish(AttemptFinished(run_id=run_id, attempt=attempt, status=status, **facts))

    async def ended(self, run_id: UUID) -> RunFinished:
        return (await eventually(lambda: self.of(RunFinished, run_id)))[0]

    async def show(self, run_id: UUID) -> Run:
        return await self.bus.ask(FindRun(run_id=run_id))


def impatient(settings: Settings) -> Settings:
    return settings.model_copy(update={"run_silence_seconds": 0.4, "tick_interval_seconds": 0.1})


@pytest.fixture(scope="module")
async def world(stack: Stack) -> AsyncIterator[World]:
    bus = playing_all(stack.settings)
    async with AsyncExitStack() as exits:
        objects = await exits.enter_async_context(object_store(stack.settings, "runner"))
        world = World(bus, objects)

        async def validate(query: ValidatePipeline) -> Validation:
            """Everything is fine."""
            return Validation(valid=True, files=[])

        async def hear(event: Any) -> None:
            world.heard.append(event)

        bus.answer(ValidatePipeline, validate)
        for event in (RunQueued, RunStarted, RunFinished, RunRejected, RunCancel, TableChanged):
            bus.hear(event, _hearing(event, hear))
        await exits.enter_async_context(serve(stack.settings))
        await exits.enter_async_context(bus.running())
        await eventually(lambda: bus.ask(ListNamespaces()))
        yield world


def _hearing(kind: type[Any], hear: Any) -> Any:
    async def heard(event: Any) -> None:
        await hear(event)

    heard.__annotations__ = {"event": kind, "return": None}
    return heard


# Requests


async def test_a_plain_request_of_an_outsider_becomes_one_run_however_often_it_comes(world: World) -> None:
    pipeline = await world.pipeline()
    event_id = uuid4()
    body = {"event_id": str(event_id), "pipeline": pipeline, "trigger": "event:billing"}
    run_id = run_id_for(pipeline, str(event_id))

    for _ in range(3):
        await world.bus.send("run.requested", json.dumps(body).encode(), {}, stored=True)

    queued = await world.queued(run_id)
    assert queued.trigger == "event:billing"
    found = await world.bus.ask(ListRuns(pipeline=pipeline.split(".")[2]))
    assert found.total == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"pipeline": "default.bronze.nowhere"}, RejectionReason.UNKNOWN_PIPELINE),
        # A schedule that was made while its pipeline was being removed: nobody else will tell it.
        ({"pipeline": "default.bronze.nowhere", "pipeline_id": uuid4()}, RejectionReason.PIPELINE_REMOVED),
        ({"publish": False}, RejectionReason.UNPUBLISHED),
        ({"pipeline_id": uuid4()}, RejectionReason.PIPELINE_REMOVED),
    ],
    ids=lambda value: str(value) if isinstance(value, RejectionReason) else "",
)
async def test_a_request_that_cannot_be_is_rejected_with_its_reason(
    world: World, facts: dict[str, Any], reason: RejectionReason
) -> None:
    pipeline = facts.get("pipeline") or await world.pipeline(publish=facts.pop("publish", True))
    request = RunRequested(**{"trigger": "schedule:* * * * *", "pipeline": pipeline, **facts})

    await world.bus.publish(request)

    run_id = run_id_for(pipeline, str(request.event_id))
    [rejected] = await eventually(lambda: world.of(RunRejected, run_id))
    assert rejected.reason is reason
    outcome = await world.bus.ask(FindRunOutcome(run_id=run_id))
    assert outcome.is_known
    assert outcome.is_rejected


async def test_a_request_for_a_draft_that_cannot_be_pinned_is_rejected(world: World, stack: Stack) -> None:
    pipeline = await world.pipeline(publish=False)
    folder = Qualified.parse(pipeline).folder
    async with object_store(stack.settings, "infra") as bucket:
        for start in range(0, MAX_FILES, 50):
            numbers = range(start, start + 50)
            await asyncio.gather(*(bucket.put(f"{folder}tests/quality/t{n}.sql", b"select 1") for n in numbers))
    event = RunRequested(pipeline=pipeline, trigger="manual")

    await world.bus.publish(event)

    run_id = run_id_for(pipeline, str(event.event_id))
    [rejected] = await eventually(lambda: world.of(RunRejected, run_id))
    assert rejected.reason is RejectionReason.INVALID
    assert "a pipeline may have 500 files, this one has 50" in rejected.message


async def test_a_request_that_must_not_overlap_is_rejected_while_a_run_is_open(world: World) -> None:
    pipeline = await world.pipeline()
    await world.request(pipeline)
    second = RunRequested(pipeline=pipeline, trigger="schedule:* * * * *", overlap="skip")

    await world.bus.publish(second)

    [rejected] = await eventually(lambda: world.of(RunRejected, run_id_for(pipeline, str(second.event_id))))
    assert rejected.reason is RejectionReason.OVERLAP


async def test_an_idempotency_key_gives_the_same_run_and_refuses_another_body(world: World) -> None:
    pipeline = await world.pipeline()
    ask = RequestRun(request=RunRequested(pipeline=pipeline, trigger="manual"), idempotency_key=uuid4().hex)

    first = await world.bus.ask(ask)
    again = await world.bus.ask(
        RequestRun(request=RunRequested(pipeline=pipeline, trigger="manual"), idempotency_key=ask.idempotency_key)
    )

    assert again.run_id == first.run_id
    with pytest.raises(Conflict):
        await world.bus.ask(
            RequestRun(
                request=RunRequested(pipeline=pipeline, trigger="manual", parameters={"day": 1}),
                idempotency_key=ask.idempotency_key,
            )
        )


async def test_a_run_of_an_unknown_pipeline_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.request("default.bronze.nowhere")


# Claims


async def test_a_manual_run_of_a_draft_is_pinned_claimed_and_ends(world: World) -> None:
    pipeline = await world.pipeline(publish=False)
    run_id = await world.request(pipeline, parameters={"day": "monday"})
    await world.queued(run_id)

    attempt = await world.claim(run_id)
    again = await world.claim(run_id)

    assert isinstance(attempt, Attempt)
    assert attempt == again
    assert (attempt.attempt, attempt.head, attempt.parameters) == (1, "7", {"day": "monday"})
    assert {file.path for file in attempt.files} == {"pipeline.sql", "config.yaml"}
    assert all(file.version_id for file in attempt.files)
    await eventually(lambda: world.of(RunStarted, run_id))
    phase = Phase(name="write", duration_ms=12.5, metadata={"rows": 3})
    await world.bus.publish(RunProgressed(run_id=run_id, attempt=1, phase=phase))

    async def shown() -> list[Phase]:
        return (await world.show(run_id)).phase_profiles

    assert await eventually(shown) == [phase]
    report = AttemptReport(
        run_id=run_id,
        attempt=1,
        pipeline=pipeline,
        status=RunStatus.SUCCESS,
        quality=[QualityResult(name="unique", status="passed", value=0, duration_ms=3.5)],
    )
    await world.objects.put(f"default/runs/{run_id}/1.json", report.model_dump_json().encode())
    await world.finish(
        run_id,
        1,
        RunStatus.SUCCESS,
        rows_written=3,
        phases=[phase],
        merged_at=datetime.now(UTC),
        tables=[WrittenTable(table=pipeline, snapshot="8")],
        report_key=f"default/runs/{run_id}/1.json",
    )
    finished = await world.ended(run_id)
    assert (finished.status, finished.rows_written) == (RunStatus.SUCCESS, 3)
    run = await world.show(run_id)
    assert [(one.name, one.status, one.expected) for one in run.quality] == [("unique", "passed", 0)]
    [changed] = await eventually(lambda: world.of(TableChanged, run_id))
    assert changed.snapshot == "8"
    assert isinstance(await world.claim(run_id, "c2"), Over)


async def test_a_report_that_comes_with_the_end_of_a_run_is_not_asked_for(world: World) -> None:
    pipeline = await world.pipeline()
    run_id = await world.request(pipeline)
    await world.queued(run_id)
    await world.claim(run_id)

    report = AttemptReport(
        run_id=run_id,
        attempt=1,
        pipeline=pipeline,
        status=RunStatus.SUCCESS,
        quality=[QualityResult(name="unique", status="passed", value=0, duration_ms=3.5)],
    )
    key = f"default/runs/{run_id}/is-not-there.json"
    await world.finish(run_id, 1, RunStatus.SUCCESS, report_key=key, report=report.model_dump_json())

    await world.ended(run_id)
    assert [one.name for one in (await world.show(run_id)).quality] == ["unique"]


@pytest.mark.parametrize("kept", [None, b'{"of": "another version"}'], ids=["gone", "not understood"])
async def test_a_run_ends_whose_report_cannot_be_read(world: World, kept: bytes | None) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id)
    key = f"default/runs/{run_id}/1.json"
    if kept is not None:
        await world.objects.put(key, kept)

    await world.finish(run_id, 1, RunStatus.SUCCESS, report_key=key, rows_written=3)

    assert (await world.ended(run_id)).rows_written == 3
    assert (await world.show(run_id)).quality == []


async def test_how_a_test_judged_the_runs_of_its_pipeline_is_kept(world: World) -> None:
    pipeline = await world.pipeline()
    run_ids = []
    for value in (3, 0):
        run_id = await world.request(pipeline)
        run_ids.append(run_id)
        await world.queued(run_id)
        await world.claim(run_id)
        result = QualityResult(
            name="positive",
            status="failed" if value else "passed",
            value=value,
            duration_ms=3.5,
            sample_rows=[{"id": 1}] if value else [],
            compiled_sql="select 1",
        )
        await _report(world, run_id, pipeline, quality=[result])
        await world.ended(run_id)

    history = await world.bus.ask(ListQualityResults(pipeline=pipeline, name="positive"))
    page = await world.bus.ask(ListQualityResults(pipeline=pipeline, name="positive", limit=1))

    assert [(one.run_id, one.status, one.value) for one in history.results] == [
        (run_ids[1], "passed", 0),
        (run_ids[0], "failed", 3),
    ]
    assert (history.results[1].sample_rows, history.results[1].compiled_sql) == ([{"id": 1}], "select 1")
    assert (history.total, len(page.results), page.next_cursor is not None) == (2, 1, True)
    with pytest.raises(NotFound, match="no test 'nothing'"):
        await world.bus.ask(ListQualityResults(pipeline=pipeline, name="nothing"))


async def test_a_test_that_has_found_rows_too_long_to_tell_is_still_told_of(world: World) -> None:
    pipeline = await world.pipeline()
    run_id = await world.request(pipeline)
    await world.queued(run_id)
    await world.claim(run_id)
    rows = [{f"column {number}": "x" * 1000 for number in range(60)} for _ in range(20)]
    result = QualityResult(name="wide", status="failed", value=20, duration_ms=3.5, sample_rows=rows)
    await _report(world, run_id, pipeline, quality=[result])
    await world.ended(run_id)

    [told] = (await world.bus.ask(ListQualityResults(pipeline=pipeline, name="wide"))).results

    assert (told.status, told.value, told.sample_rows) == ("failed", 20, [])


async def test_a_run_of_which_there_is_much_to_tell_is_still_shown(world: World) -> None:
    pipeline = await world.pipeline()
    run_id = await world.request(pipeline)
    await world.queued(run_id)
    await world.claim(run_id)
    rows = [{"text": "x" * 1000} for _ in range(20)]
    results = [QualityResult(name=f"t{number}", status="failed", value=20, sample_rows=rows) for number in range(30)]
    columns = [
        ColumnChange(column=f"a_rather_long_name_{number}", change="added", after="INTEGER") for number in range(5000)
    ]
    changes = TableChanges(
        table=pipeline, is_new=True, rows_added=3, rows_removed=2, rows_changed=1, schema_changes=columns
    )
    await _report(world, run_id, pipeline, quality=results, changes=[changes])
    await world.ended(run_id)

    run = await world.show(run_id)

    assert len(run.changes[0]["schema_changes"]) == 200
    assert len(run.quality) == 30
    assert {(one.value, len(one.sample_rows)) for one in run.quality} == {(20, 0)}


async def test_what_a_dry_run_would_have_changed_is_shown(world: World) -> None:
    pipeline = await world.pipeline()
    run_id = await world.request(pipeline, dry_run=True)
    await world.queued(run_id)
    await world.claim(run_id)
    changes = TableChanges(table=pipeline, is_new=False, rows_added=3, rows_removed=2, rows_changed=1)

    await _report(world, run_id, pipeline, changes=[changes])
    finished = await world.ended(run_id)

    run = await world.show(run_id)
    assert finished.dry_run
    assert run.changes == [changes.model_dump(mode="json")]


async def test_an_ended_run_is_run_again_with_its_version_and_parameters(world: World) -> None:
    pipeline = await world.pipeline()
    run_id = await world.request(pipeline, parameters={"day": "monday"}, dry_run=True)
    await world.queued(run_id)
    first = await world.claim(run_id)
    with pytest.raises(Conflict, match="has not ended"):
        await world.bus.ask(RetryRun(run_id=run_id))
    await world.finish(run_id, 1, RunStatus.FAILED, error="no", error_kind=ErrorKind.SQL)
    await world.ended(run_id)
    await world.bus.ask(PublishPipeline(pipeline=pipeline))

    again = await world.bus.ask(RetryRun(run_id=run_id))

    await world.queued(again.run_id)
    attempt = await world.claim(again.run_id)
    assert again.run_id != run_id
    assert (attempt.version, attempt.parameters, attempt.dry_run) == (1, {"day": "monday"}, True)
    assert attempt.files == first.files
    assert (await world.show(again.run_id)).trigger == "manual"
    with pytest.raises(NotFound):
        await world.bus.ask(RetryRun(run_id=uuid4()))


@pytest.mark.parametrize("is_published_since", [False, True], ids=["draft", "published since"])
async def test_a_run_of_a_draft_is_run_again_with_the_files_of_then(world: World, is_published_since: bool) -> None:
    pipeline = await world.pipeline(publish=False)
    run_id = await world.request(pipeline)
    await world.queued(run_id)
    first = await world.claim(run_id)
    await world.finish(run_id, 1, RunStatus.FAILED, error="no", error_kind=ErrorKind.SQL)
    await world.ended(run_id)
    folder = f"default/pipelines/bronze/{pipeline.split('.')[2]}/"
    await world.bus.ask(WriteCodeFile(path=f"{folder}pipeline.sql", content="select 2 as id"))
    if is_published_since:
        await world.bus.ask(PublishPipeline(pipeline=pipeline))

    again = await world.bus.ask(RetryRun(run_id=run_id))

    await world.queued(again.run_id)
    attempt = await world.claim(again.run_id)
    assert (attempt.version, attempt.files) == (None, first.files)


async def test_a_run_that_was_cancelled_while_it_waited_is_run_again_with_the_version_that_it_wanted(
    world: World,
) -> None:
    pipeline = await world.pipeline()
    await world.bus.ask(PublishPipeline(pipeline=pipeline))
    first = await world.request(pipeline)
    waiting = await world.request(pipeline, version=1)
    await world.bus.ask(CancelRun(run_id=waiting))
    await world.bus.ask(CancelRun(run_id=first))

    again = await world.bus.ask(RetryRun(run_id=waiting))

    await world.queued(again.run_id)
    assert (await world.claim(again.run_id)).version == 1


async def test_a_retry_under_an_idempotency_key_is_one_run_however_often_it_is_asked_for(world: World) -> None:
    pipeline = await world.pipeline()
    ended = [await world.request(pipeline) for _ in range(2)]
    for run_id in reversed(ended):
        await world.bus.ask(CancelRun(run_id=run_id))
    query = RetryRun(run_id=ended[0], idempotency_key=uuid4().hex)

    first = await world.bus.ask(query)
    await world.bus.ask(CancelRun(run_id=first.run_id))
    again = await world.bus.ask(query)

    assert (again.run_id, again.status) == (first.run_id, RunStatus.CANCELLED)
    with pytest.raises(Conflict, match="used for another request"):
        await world.bus.ask(query.model_copy(update={"run_id": ended[1]}))
    plain = RunRequested(pipeline=pipeline, trigger="manual")
    with pytest.raises(Conflict, match="used for another request"):
        await world.bus.ask(RequestRun(request=plain, idempotency_key=query.idempotency_key))


async def _report(world: World, run_id: UUID, pipeline: str, **facts: Any) -> None:
    """End a run well, with a report that says this."""
    key = f"default/runs/{run_id}/1.json"
    report = AttemptReport(run_id=run_id, attempt=1, pipeline=pipeline, status=RunStatus.SUCCESS, **facts)
    await world.objects.put(key, report.model_dump_json().encode())
    await world.finish(run_id, 1, RunStatus.SUCCESS, report_key=key)


async def test_a_lost_runner_is_followed_by_the_next_attempt_and_cannot_come_back(world: World) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id, "first delivery")

    second = await world.claim(run_id, "second delivery", head="99")

    assert (second.attempt, second.head) == (2, "7")
    assert not (await world.bus.ask(CheckAttempt(run_id=run_id, attempt=1))).is_newest
    assert (await world.bus.ask(CheckAttempt(run_id=run_id, attempt=2))).is_wanted
    assert isinstance(await world.claim(run_id, "again", "conflict", follows=1), Superseded)
    assert isinstance(await world.claim(run_id, "first delivery"), Superseded)
    third = await world.claim(run_id, "again", "conflict", follows=2)
    assert (third.attempt, third.conflicts) == (3, 1)
    await world.finish(run_id, 2, RunStatus.FAILED, error="late", error_kind=ErrorKind.SQL)
    await world.finish(run_id, 3, RunStatus.FAILED, error="newest", error_kind=ErrorKind.SQL)
    assert (await world.ended(run_id)).error == "newest"


async def test_what_is_on_main_counts_from_any_attempt(world: World) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id, "first")
    await world.claim(run_id, "second")

    await world.finish(run_id, 1, RunStatus.SUCCESS, merged_at=datetime.now(UTC))

    assert (await world.ended(run_id)).attempt == 1


async def test_five_lost_runners_in_a_row_end_a_run(world: World) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)

    answers = [await world.claim(run_id, f"delivery {number}") for number in range(6)]

    assert [answer.verdict for answer in answers] == ["attempt"] * 5 + ["end"]
    assert isinstance(answers[5], EndRun)
    assert (answers[5].status, answers[5].error_kind, answers[5].attempt) == (
        RunStatus.FAILED,
        ErrorKind.UNAVAILABLE,
        5,
    )


async def test_one_run_of_a_pipeline_at_a_time_and_none_forgotten(world: World) -> None:
    pipeline = await world.pipeline()
    runs = [await world.request(pipeline) for _ in range(4)]

    for number, run_id in enumerate(runs):
        await world.queued(run_id)
        assert not any(world.of(RunQueued, later) for later in runs[number + 1 :])
        await world.claim(run_id)
        await world.finish(run_id, 1, RunStatus.SUCCESS, merged_at=datetime.now(UTC))
        await world.ended(run_id)


# Ends


async def test_a_run_that_nobody_has_is_cancelled_at_once(world: World) -> None:
    pipeline = await world.pipeline()
    first, second = [await world.request(pipeline) for _ in range(2)]

    await world.bus.ask(CancelRun(run_id=first))

    assert (await world.ended(first)).status is RunStatus.CANCELLED
    await world.queued(second)
    with pytest.raises(Conflict):
        await world.bus.ask(CancelRun(run_id=first))


async def test_the_runner_of_a_run_is_told_again_and_again_that_it_is_not_wanted(world: World) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id)

    await world.bus.ask(CancelRun(run_id=run_id))

    await eventually(lambda: len(world.of(RunCancel, run_id)) >= 2)
    assert not (await world.bus.ask(CheckAttempt(run_id=run_id, attempt=1))).is_wanted
    order = await world.claim(run_id, "c2")
    assert isinstance(order, EndRun)
    assert order.status is RunStatus.CANCELLED
    await world.finish(run_id, 1, RunStatus.CANCELLED, error_kind=ErrorKind.CANCELLED)
    assert (await world.ended(run_id)).status is RunStatus.CANCELLED


async def test_deleting_a_pipeline_ends_its_runs(world: World) -> None:
    pipeline = await world.pipeline()
    claimed, waiting = [await world.request(pipeline) for _ in range(2)]
    await world.queued(claimed)
    await world.claim(claimed)

    await world.bus.ask(DeletePipeline(pipeline=pipeline))

    assert (await world.ended(waiting)).status is RunStatus.CANCELLED
    await eventually(lambda: world.of(RunCancel, claimed))
    await world.finish(claimed, 1, RunStatus.CANCELLED)
    await world.ended(claimed)


async def test_a_silent_run_is_queued_again_and_the_old_message_is_over(world: World, stack: Stack) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id)

    async with serve(impatient(stack.settings)):
        await world.queued(run_id, queue_number=2)

    assert isinstance(await world.claim(run_id, "c2"), Over)

    async def claimed() -> Attempt | None:
        # Silence may have been noticed once more before the impatient one was gone.
        newest = max(one.queue_number for one in world.of(RunQueued, run_id))
        answer = await world.claim(run_id, f"queued {newest} times", queue_number=newest)
        return answer if isinstance(answer, Attempt) else None

    assert (await eventually(claimed)).attempt == 2
    await world.finish(run_id, 2, RunStatus.FAILED, error_kind=ErrorKind.SQL)
    await world.ended(run_id)


async def test_the_log_of_a_run_can_be_addressed(world: World) -> None:
    run_id = await world.request(await world.pipeline())
    await world.queued(run_id)
    await world.claim(run_id)
    assert (await world.bus.ask(AddressRunLogs(run_id=run_id))).url is None
    key = f"default/logs/{run_id}/1.jsonl"

    await world.finish(run_id, 1, RunStatus.FAILED, error="no", error_kind=ErrorKind.SQL, logs_key=key)

    await world.ended(run_id)
    url = (await world.bus.ask(AddressRunLogs(run_id=run_id))).url
    assert url is not None
    assert key in url


async def test_two_catalogs_decide_like_one(world: World, stack: Stack) -> None:
    pipeline = await world.pipeline()
    requests = [RunRequested(pipeline=pipeline, trigger="event:x") for _ in range(10)]

    async with serve(stack.settings):
        for request in requests:
            await world.bus.publish(request)
            await world.bus.publish(request.model_copy(update={"occurred_at": datetime.now(UTC)}))
        open_runs = {run_id_for(pipeline, str(request.event_id)) for request in requests}
        while open_runs:
            run_id = await eventually(lambda: next((one for one in open_runs if world.of(RunQueued, one)), None))
            open_runs.discard(run_id)
            await world.claim(run_id)
            await world.finish(run_id, 1, RunStatus.SUCCESS, merged_at=datetime.now(UTC))
            await world.ended(run_id)

    assert (await world.bus.ask(ListRuns(pipeline=pipeline.split(".")[2]))).total == 10
