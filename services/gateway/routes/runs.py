"""Runs and their logs."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody

from contracts.messages import Message
from contracts.names import Layer
from contracts.runs import (
    CancelRun,
    FindRun,
    ListRuns,
    LogLine,
    RequestRun,
    RetryRun,
    Run,
    RunAccepted,
    RunRequested,
    Runs,
    RunStatus,
)
from services.gateway import run_logs
from services.gateway.bodies import NewRun
from services.gateway.dependencies import Asker, Closing, Departure, Noted, Page, Store
from services.gateway.held import held
from services.gateway.sse import MEDIA_TYPE, event_stream

Accept = Annotated[str, HeaderParameter(name="Accept", description="`text/event-stream` to follow the run")]
LastEventId = Annotated[
    str, HeaderParameter(name="Last-Event-ID", description="The id of the last event that was seen")
]
IdempotencyKey = Annotated[
    str | None, HeaderParameter(name="Idempotency-Key", max_length=300, description="The same key is the same run")
]


class Logs(Message):
    """The log of a run."""

    logs: list[LogLine]
    status: RunStatus


class RunRoutes(Controller):
    """Pipelines at work."""

    path = "/runs"
    tags = ("Runs",)

    @get()
    async def list_runs(
        self,
        bus: Asker,
        page: Page,
        namespace: FromQuery[str | None] = None,
        layer: FromQuery[Layer | None] = None,
        pipeline: FromQuery[str | None] = None,
        status: FromQuery[RunStatus | None] = None,
        trigger: FromQuery[str | None] = None,
        started_after: FromQuery[datetime | None] = None,
        started_before: FromQuery[datetime | None] = None,
        sort: FromQuery[
            Literal["created_at", "-created_at", "started_at", "-started_at", "duration_ms", "-duration_ms"]
        ] = "-created_at",
    ) -> Runs:
        """List runs, the newest first."""
        query = ListRuns(
            **page.model_dump(),
            namespace=namespace,
            layer=layer,
            pipeline=pipeline,
            status=status,
            trigger=trigger,
            started_after=started_after,
            started_before=started_before,
            sort=sort,
        )
        return await bus.ask(query)

    @post(status_code=202, opt={"audit": "run.trigger"})
    async def request_run(
        self, bus: Asker, notes: Noted, data: JSONBody[NewRun], idempotency_key: IdempotencyKey = None
    ) -> RunAccepted:
        """Ask for a run of a pipeline; it is recorded when this is answered."""
        notes.resource = f"{data.namespace}/{data.layer}/{data.pipeline}"
        given = {"trigger": "manual"} | data.given()
        pipeline = ".".join(given.pop(part) for part in ("namespace", "layer", "pipeline"))
        request = RunRequested(pipeline=pipeline, **given)
        accepted = await bus.ask(RequestRun(request=request, idempotency_key=idempotency_key))
        notes.detail["run_id"] = str(accepted.run_id)
        return accepted

    @get("/{run_id:uuid}")
    async def find_run(self, bus: Asker, run_id: FromPath[UUID]) -> Run:
        """Show a run."""
        return await bus.ask(FindRun(run_id=run_id))

    @post("/{run_id:uuid}/cancel", status_code=202, opt={"audit": "run.cancel"})
    async def cancel_run(self, bus: Asker, run_id: FromPath[UUID]) -> RunAccepted:
        """Ask for the end of a run."""
        return await bus.ask(CancelRun(run_id=run_id))

    @post("/{run_id:uuid}/retry", status_code=202, opt={"audit": "run.retry"})
    async def retry_run(
        self, bus: Asker, notes: Noted, run_id: FromPath[UUID], idempotency_key: IdempotencyKey = None
    ) -> RunAccepted:
        """Ask for a new run of the version, or the draft of then, and with the parameters of one that has ended."""
        accepted = await bus.ask(RetryRun(run_id=run_id, idempotency_key=idempotency_key))
        notes.detail["run_id"] = str(accepted.run_id)
        return accepted

    @get("/{run_id:uuid}/logs", responses={200: ResponseSpec(Logs, generate_examples=False)})
    async def read_logs(
        self,
        bus: Asker,
        closing: Closing,
        store: Store,
        departure: Departure,
        run_id: FromPath[UUID],
        accept: Accept = "",
        last_event_id: LastEventId = "",
    ) -> Response[Any]:
        """Read the log of a run, or follow it: events `log`, `phase` and `status`, ending after the terminal one."""
        if MEDIA_TYPE not in accept:
            return await held(run_logs.lines(bus, store, run_id), "application/json", departure)
        run = await bus.ask(FindRun(run_id=run_id))
        return event_stream(run_logs.follow(bus, store, run, run_logs.Place.parse(last_event_id)), closing)
