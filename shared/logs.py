"""Structured logs: one event with fields a line, JSON for machines or colours for people, on standard error."""

import logging
import sys
from contextvars import ContextVar
from typing import Any, Literal

import structlog
from structlog.typing import EventDict

correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)
"""What ties a request to everything that it caused; travels in HTTP and message headers."""


def set_up_logs(level: str, form: Literal["json", "console"]) -> None:
    """Send what this process logs to standard error, from `level` up."""
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_correlation_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if form == "json" else _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


def _add_correlation_id(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if (current := correlation_id.get()) is not None:
        event.setdefault("correlation_id", current)
    return event


def _keep(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return event
