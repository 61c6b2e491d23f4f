"""How a run ends: what could still merge is closed, main is looked at, and only then is anything said."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from pydantic import ValidationError

from contracts.names import Qualified
from contracts.reports import AttemptReport
from contracts.runs import AttemptFinished, EndRun
from services.runner import domain, report
from shared.errors import NotFound, Unavailable
from shared.lakehouse.port import Lakehouse, Merged
from shared.object_store import ObjectStore

log = structlog.get_logger()

T = TypeVar("T")

UNREACHABLE: Final = (Unavailable, OSError, TimeoutError)
"""What says that a server cannot be reached."""


async def end_as_ordered(
    lakehouse: Lakehouse, objects: ObjectStore, order: EndRun, answered: frozenset[int]
) -> AttemptFinished:
    """End a run for which no attempt is given any more: as catalog says, unless it is on main."""
    merged = await close_and_look(lakehouse, order.run_id, order.attempt, order.head, answered=answered)
    if merged is not None:
        return await end_as_found(objects, Qualified.parse(order.pipeline), merged)
    return report.ended(order)


async def end_as_found(objects: ObjectStore, pipeline: Qualified, merged: Merged) -> AttemptFinished:
    """The success of the attempt that merged, as it reported it itself."""
    assert merged.run_id is not None, "it was found by its run"
    assert merged.attempt is not None, "runs merge with the number of their attempt"
    key = report.report_key(pipeline, merged.run_id, merged.attempt)
    try:
        content = await patiently("report", lambda: objects.get(key))
        kept = AttemptReport.model_validate_json(content)
    except (NotFound, ValidationError) as error:
        log.warning("the report of a merged attempt cannot be read", key=key, error=type(error).__name__)
        kept = report.success_without_report(pipeline, merged)
    return report.finished(kept, merged=merged)


async def close_and_look(
    lakehouse: Lakehouse, run_id: UUID, attempt: int, head: str, *, answered: frozenset[int]
) -> Merged | None:
    """Close the branches of a run up to an attempt, then look for it on main; waits for the lakehouse if need be.

    `answered` are the attempts of which it is known that their merge was answered, or never sent.
    """

    async def close() -> None:
        branches = await open_branches(lakehouse, run_id)
        for name in domain.branches_to_end(branches, run_id, attempt):
            await lakehouse.close_branch(name)

    await patiently("branches", close)
    return await patiently("main", lambda: look(lakehouse, run_id, attempt, head, answered=answered))


async def look(
    lakehouse: Lakehouse, run_id: UUID, attempt: int, head: str, *, answered: frozenset[int]
) -> Merged | None:
    """Look for a run on main, for certain: its branches up to an attempt are closed.

    A merge that was under way when its branch was closed may take a while to show.
    """
    merged = await lakehouse.find_merge(run_id, head)
    within = lakehouse.merges_settle_within
    if merged is not None or not within or answered.issuperset(range(1, attempt + 1)):
        return merged
    branches = await lakehouse.branches(domain.branch_prefix(run_id))
    closings = {branch.name: branch.closed_at for branch in branches if branch.closed_at is not None}
    settled_at = domain.until_settled(closings, run_id, attempt, answered=answered, within=within)
    if settled_at is None:
        return None
    # No longer than that, whatever the clocks say.
    remaining = min(settled_at - datetime.now(UTC), within)
    if remaining > timedelta(0):
        await asyncio.sleep(remaining.total_seconds())
    return await lakehouse.find_merge(run_id, head)


async def open_branches(lakehouse: Lakehouse, run_id: UUID) -> list[str]:
    """The branches of a run that can still be committed to or merged."""
    branches = await lakehouse.branches(domain.branch_prefix(run_id))
    return [branch.name for branch in branches if branch.closed_at is None]


async def patiently(what: str, do: Callable[[], Awaitable[T]]) -> T:
    """Do something that a run cannot end without; a server that cannot be reached is waited for."""
    outages = 0
    while True:
        try:
            return await do()
        except UNREACHABLE as error:
            log.warning("the end of a run waits", what=what, error=str(error))
        await asyncio.sleep(domain.outage_pause(outages))
        outages += 1


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Wait for something that must not be left in the middle: whoever cancels waits for its end, too."""
    task = asyncio.create_task(work)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    return task.result()
