"""How the platform is: health, metrics, and what it can do."""

import asyncio
from importlib.metadata import version
from time import perf_counter
from typing import Any, Final, Literal

import nats.errors
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from contracts.health import CheckHealth, Dependency, Health
from contracts.messages import Message
from services.gateway.dependencies import Asker, Counted
from services.gateway.metrics import family, sample
from shared.bus import Bus
from shared.consumers import consumers
from shared.dead_letters import count_dead_letters
from shared.errors import RatError

ASKED: Final = ("catalog", "ingest", "query", "runner", "scheduler", "trigger")
_PATIENCE_SECONDS: Final = 5.0


class Alive(Message):
    """The gateway answers."""

    status: Literal["ok"] = "ok"
    version: str


class State(Message):
    """Whether something that is needed is there."""

    state: Literal["up", "down"]
    latency_ms: float
    message: str | None = None


class Readiness(Message):
    """Whether everything that is needed is there."""

    status: Literal["ready", "unavailable"]
    version: str
    dependencies: dict[str, State]
    """By name: `nats`, the services, and what they and the gateway depend on, as `catalog/postgres`."""


class Features(Message):
    """What this edition can do."""

    edition: str = "community"
    namespaces: bool = True
    multi_user: bool = False
    landing_zones: bool = True
    plugins: dict[str, Any] = {}


@get(["/health", "/health/live"], tags=["Platform"], opt={"is_public": True})
async def is_alive() -> Alive:
    """Say that the gateway is there."""
    return Alive(version=version("rat-platform"))


@get(
    "/health/ready",
    tags=["Platform"],
    opt={"is_public": True},
    responses={
        200: ResponseSpec(Readiness, generate_examples=False),
        503: ResponseSpec(Readiness, generate_examples=False, description="Something that is needed is down"),
    },
)
async def is_ready(bus: Asker) -> Response[Readiness]:
    """Ask all services how they are, and what they depend on."""
    nats_server, own, services = await asyncio.gather(
        _nats(bus),
        bus.health(CheckHealth(service=bus.service)),
        asyncio.gather(*(_health(bus, service) for service in ASKED)),
    )
    dependencies = {"nats": nats_server} | {f"{bus.service}/{one.name}": _state(one) for one in own.dependencies}
    for service, (state, inner) in zip(ASKED, services, strict=True):
        dependencies[service] = state
        dependencies |= {f"{service}/{one.name}": _state(one) for one in inner}
    is_up = all(one.state == "up" for one in dependencies.values())
    readiness = Readiness(
        status="ready" if is_up else "unavailable", version=version("rat-platform"), dependencies=dependencies
    )
    return Response(readiness, status_code=200 if is_up else 503)


def _state(dependency: Dependency) -> State:
    return State(state=dependency.state, latency_ms=dependency.latency_ms, message=dependency.message)


async def _nats(bus: Bus) -> State:
    began = perf_counter()
    problem = None
    try:
        await bus.connection.flush(timeout=int(_PATIENCE_SECONDS))
    except (TimeoutError, nats.errors.Error, OSError) as error:
        problem = f"NATS cannot be reached: {type(error).__name__}"
    return State(state="down" if problem else "up", latency_ms=_since(began), message=problem)


async def _health(bus: Bus, service: str) -> tuple[State, list[Dependency]]:
    began = perf_counter()
    try:
        health: Health = await bus.ask(CheckHealth(service=service), timeout=_PATIENCE_SECONDS)
    except RatError as error:
        return State(state="down", latency_ms=_since(began), message=error.message), []
    return State(state="up", latency_ms=_since(began)), health.dependencies


def _since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 3)


@get("/metrics", tags=["Platform"], media_type="text/plain; version=0.0.4")
async def read_metrics(bus: Asker, metrics: Counted) -> str:
    """Read what is counted, in Prometheus' text format."""
    lines = [*metrics.lines(), *family("rat_up", "gauge", "Whether NATS says how far the services are.")]
    try:
        lag, dead = await asyncio.gather(consumers(bus.jetstream), count_dead_letters(bus.jetstream))
    except RatError:
        return "\n".join([*lines, sample("rat_up", {}, 0)]) + "\n"
    lines += [sample("rat_up", {}, 1), *family("rat_dead_letters", "gauge", "Messages that could not be handled.")]
    lines += [sample("rat_dead_letters", {}, dead), *family("rat_consumer_pending", "gauge", "Events not handled yet.")]
    lines += [
        sample("rat_consumer_pending", {"stream": one.stream, "consumer": one.consumer}, one.pending + one.ack_pending)
        for one in lag
    ]
    return "\n".join(lines) + "\n"


@get("/features", tags=["Platform"])
async def read_features() -> Features:
    """Say what this edition can do."""
    return Features()
