"""Results of queries on their way out: as JSON, CSV or Arrow, held back until it is known that they begin well."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio
import msgspec
import pyarrow as pa
from litestar import Response

from contracts.messages import Query
from contracts.previews import Sent
from contracts.tables import ResultEnd
from services.gateway.arrow import ArrowPieces, columns_of, csv_lines, csv_of, rows_of
from services.gateway.dependencies import Departure
from services.gateway.held import held
from shared.bus import Bus
from shared.chunks import Chunked, asking

ARROW: Final = "application/vnd.apache.arrow.stream"
CSV: Final = "text/csv"
JSON: Final = "application/json"

Render = Callable[[Chunked[ResultEnd]], AsyncGenerator[bytes, None]]


async def result(
    bus: Bus, query: Callable[[str], Query[ResultEnd]], accept: str, departure: Departure
) -> Response[Any]:
    """Ask, and answer with what comes in the format that is accepted; JSON if none of ours is named."""
    if ARROW in accept:
        return await held(_asked(bus, query, _arrow), ARROW, departure)
    if CSV in accept:
        return await held(_asked(bus, query, _csv), f"{CSV}; charset=utf-8", departure)
    return await held(_asked(bus, query, _json), JSON, departure)


async def sent(bus: Bus, query: Callable[[str], Query[Sent]], departure: Departure) -> Response[Any]:
    """Ask, and answer with the JSON that comes in chunks."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        async with asking(bus, query) as answer:
            async for chunk in answer:
                yield chunk

    return await held(chunks(), JSON, departure)


async def _asked(bus: Bus, query: Callable[[str], Query[ResultEnd]], render: Render) -> AsyncGenerator[bytes, None]:
    async with asking(bus, query) as answer, aclosing(render(answer)) as pieces:
        async for piece in pieces:
            yield piece


async def _arrow(answer: Chunked[ResultEnd]) -> AsyncGenerator[bytes, None]:
    async for chunk in answer:
        yield chunk


async def _csv(answer: Chunked[ResultEnd]) -> AsyncGenerator[bytes, None]:
    pieces = ArrowPieces()
    has_header = False
    async for chunk in answer:
        batches = list(pieces.add(chunk))
        if pieces.schema is not None and not has_header:
            yield csv_lines([pieces.schema.names])
            has_header = True
        for batch in batches:
            yield await anyio.to_thread.run_sync(csv_of, batch)


async def _json(answer: Chunked[ResultEnd]) -> AsyncGenerator[bytes, None]:
    pieces = ArrowPieces()
    has_begun = False
    comma = b""
    async for chunk in answer:
        batches = list(pieces.add(chunk))
        if pieces.schema is not None and not has_begun:
            yield b'{"columns":' + msgspec.json.encode(columns_of(pieces.schema)) + b',"rows":['
            has_begun = True
        for batch in batches:
            yield comma + await anyio.to_thread.run_sync(_json_rows, batch)
            comma = b","
    end = await answer.end()
    last = {"total_rows": end.total_rows, "duration_ms": end.duration_ms, "truncated": end.truncated}
    yield b"]," + msgspec.json.encode(last)[1:]


def _json_rows(batch: pa.RecordBatch) -> bytes:
    """The rows without the brackets of their list."""
    return msgspec.json.encode(rows_of(batch))[1:-1]
