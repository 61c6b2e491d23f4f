"""AsyncAPI 3 documents, one a service, as FastStream describes its broker."""

from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from faststream.specification import AsyncAPI

from contracts.messages import Event
from infra.services import SERVICES
from shared.bus import Bus


def asyncapi_documents() -> dict[str, str]:
    """File name → YAML of each service."""
    return {f"{name}.yaml": _document(name, service.declare()) for name, service in SERVICES.items()}


def _document(name: str, bus: Bus) -> str:
    for event, handler in bus.heard.items():
        if handler is None:
            bus.broker.subscriber(event.subject)(_taking(event))
    specification = AsyncAPI(bus.broker, title=f"RAT {name}", schema_version="3.0.0").to_specification()
    document: dict[str, Any] = specification.to_jsonable()
    # Where the servers are is said by settings, not by this document.
    document.pop("servers", None)
    for channel in document["channels"].values():
        channel.pop("servers", None)
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=120)


def _taking(event: type[Event]) -> Callable[..., Awaitable[None]]:
    """What stands in the document for a message that is taken one at a time."""

    async def take(message: Any) -> None: ...

    take.__doc__ = event.__doc__
    take.__annotations__ = {"message": event, "return": None}
    return take
