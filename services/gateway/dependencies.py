"""What handlers are given besides the request's own fields."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeAlias

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from contracts.paging import PageRequest
from services.gateway.edge import NOTES, Notes
from services.gateway.metrics import Metrics
from services.gateway.uplink import Uplink
from shared.bus import Bus

Asker: TypeAlias = NamedDependency[SkipValidation[Bus]]
"""The bus, to ask the services."""
Page: TypeAlias = NamedDependency[SkipValidation[PageRequest]]
"""Which part of a list is wanted."""
Store: TypeAlias = NamedDependency[SkipValidation[Uplink]]
"""The object store, at presigned addresses."""
Closing: TypeAlias = NamedDependency[SkipValidation[asyncio.Event]]
"""Set when the gateway is about to stop."""
Counted: TypeAlias = NamedDependency[SkipValidation[Metrics]]
"""What the gateway has counted."""
Departure: TypeAlias = NamedDependency[SkipValidation[Callable[[], Coroutine[Any, Any, None]]]]
"""Returns when the client has gone away; nothing else may be read from the request by then."""
Noted: TypeAlias = NamedDependency[SkipValidation[Notes]]
"""What the audit will say of this request."""


_Offset: TypeAlias = Annotated[int, QueryParameter(ge=0, description="Entries to pass over")]
_Cursor: TypeAlias = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]
_Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=200, description="Entries a page")]


def page(limit: _Limit = 50, offset: _Offset = 0, cursor: _Cursor = None) -> PageRequest:
    """The part of a list that `limit`, `offset` and `cursor` ask for."""
    return PageRequest(limit=limit, offset=offset, cursor=cursor)


def long_page(limit: _Limit = 200, offset: _Offset = 0, cursor: _Cursor = None) -> PageRequest:
    """The same, of a list that is mostly wanted whole."""
    return PageRequest(limit=limit, offset=offset, cursor=cursor)


def notes(request: Request[Any, Any, Any]) -> Notes:
    """What is learned about this request."""
    found: Notes = request.scope["state"][NOTES]
    return found


def departure(request: Request[Any, Any, Any]) -> Callable[[], Coroutine[Any, Any, None]]:
    """What waits for the end of the connection that the request came by."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone
