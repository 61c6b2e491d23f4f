"""The application: all paths, and what each request is given, checked for and answered with."""

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import structlog
from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from pydantic import BaseModel

from services.gateway import dependencies
from services.gateway.documents import DocumentsPage, JsonDocument, YamlDocument
from services.gateway.edge import NOTES, Notes
from services.gateway.encoding import plain
from services.gateway.metrics import Metrics
from services.gateway.problems import MEDIA_TYPE, as_error, problem, status_of
from services.gateway.routes.code_files import CodeFileRoutes
from services.gateway.routes.events import read_events
from services.gateway.routes.landing import LandingRoutes
from services.gateway.routes.lineage import LineageRoutes
from services.gateway.routes.namespaces import NamespaceRoutes
from services.gateway.routes.operations import DeadLetterRoutes, collect_files, list_audit, list_consumers
from services.gateway.routes.pipelines import PipelineRoutes
from services.gateway.routes.platform import is_alive, is_ready, read_features, read_metrics
from services.gateway.routes.quality import QualityRoutes
from services.gateway.routes.runs import RunRoutes
from services.gateway.routes.schedules import ScheduleRoutes
from services.gateway.routes.tables import TableRoutes, read_schema, run_query
from services.gateway.routes.triggers import TriggerRoutes
from services.gateway.tokens import Scope, Tokens
from services.gateway.uplink import Uplink
from shared.bus import Bus
from shared.errors import Forbidden, Internal, Unauthenticated

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 2 * 1024**2
"""Of any request but an upload."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Means:
    """What the handlers work with."""

    bus: Bus
    store: Uplink
    metrics: Metrics
    tokens: Tokens | None
    """None if nobody needs a token."""
    closing: asyncio.Event
    """Set when streams are to end."""


def application(means: Means) -> Litestar:
    """The API over these means."""
    return Litestar(
        route_handlers=[is_alive, is_ready, read_metrics, _api()],
        dependencies={
            "bus": Provide(lambda: means.bus, sync_to_thread=False),
            "store": Provide(lambda: means.store, sync_to_thread=False),
            "metrics": Provide(lambda: means.metrics, sync_to_thread=False),
            "closing": Provide(lambda: means.closing, sync_to_thread=False),
            "page": Provide(dependencies.page, sync_to_thread=False),
            "notes": Provide(dependencies.notes, sync_to_thread=False),
            "departure": Provide(dependencies.departure, sync_to_thread=False),
        },
        guards=[_guard(means.tokens)] if means.tokens else [],
        type_encoders={BaseModel: plain},
        exception_handlers={Exception: _tell},
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
        openapi_config=_description(needs_token=means.tokens is not None),
    )


def _api() -> Router:
    return Router(
        path="/api/v1",
        route_handlers=[
            NamespaceRoutes,
            PipelineRoutes,
            QualityRoutes,
            TriggerRoutes,
            ScheduleRoutes,
            RunRoutes,
            LandingRoutes,
            CodeFileRoutes,
            TableRoutes,
            LineageRoutes,
            DeadLetterRoutes,
            run_query,
            read_schema,
            read_events,
            list_consumers,
            list_audit,
            collect_files,
            read_features,
        ],
    )


def _description(*, needs_token: bool) -> OpenAPIConfig:
    bearer = Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")})
    return OpenAPIConfig(
        title="RAT",
        version=version("rat-platform"),
        description="Files land, pipelines run, tests judge, and only good data reaches main.",
        path="/schema",
        components=bearer if needs_token else Components(),
        security=[{"bearer": []}] if needs_token else None,
        render_plugins=[DocumentsPage(path="/"), JsonDocument(), YamlDocument()],
        use_handler_docstrings=True,
    )


def _tell(request: Request[Any, Any, Any], raised: Exception) -> Response[dict[str, Any]]:
    """The answer to a request that failed."""
    error = as_error(raised)
    if isinstance(error, Internal):
        log.error("request failed", path=request.url.path, error=error.message, exc_info=raised)
    status = status_of(error, raised)
    headers = dict(raised.headers or {}) if isinstance(raised, HTTPException) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = problem(error, status, request.url.path)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _guard(tokens: Tokens) -> Any:
    async def check(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Let in who has a token for what is asked."""
        if handler.opt.get("is_public") or connection.scope["path"].startswith("/schema"):
            return
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        found = await tokens.find(token.strip()) if kind.lower() == "bearer" else None
        if found is None:
            raise Unauthenticated("a token is needed: Authorization: Bearer …")
        name, scope = found
        notes: Notes = connection.scope["state"][NOTES]
        notes.caller = name
        needed = _needed(str(connection.scope.get("method")), handler)
        if not scope.includes(needed):
            raise Forbidden(f"the token {name!r} may {scope}, but this needs {needed}")

    return check


def _needed(method: str, handler: BaseRouteHandler) -> Scope:
    return Scope(handler.opt.get("scope") or (Scope.READ if method in _READING else Scope.WRITE))
