"""Waiting for the next due time in a table, together with the other replicas of a service."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import asyncpg

from contracts.messages import utc_now
from shared.background import happens
from shared.errors import Unavailable

_SHORTEST_PAUSE_SECONDS: Final = 0.02
"""Between two looks at what is due and could not be done: another replica is at it."""


async def when_due(
    pool: asyncpg.Pool,
    channel: str,
    work: Callable[[], Awaitable[datetime | None]],
    *,
    at_most_seconds: float,
) -> None:
    """Call `work`, which does what is due and answers when there is more to do (None: nothing is known).

    It is called again at that time, at once when the channel is notified, which whoever writes an earlier time does
    in the same transaction, and after `at_most_seconds` in any case. Ends only by raising: `Unavailable` when the
    connection that listens is lost.
    """
    told, lost = asyncio.Event(), asyncio.Event()

    def tell(*_: object) -> None:
        told.set()

    def tell_of_loss(*_: object) -> None:
        lost.set()
        told.set()

    async with pool.acquire() as listener:
        # The connection dies without a word while we wait: its end wakes us as well.
        listener.add_termination_listener(tell_of_loss)
        await listener.add_listener(channel, tell)
        try:
            while not lost.is_set():
                told.clear()
                pause = _pause_seconds(await work(), at_most_seconds)
                await happens(told, within_seconds=pause)
        finally:
            if not lost.is_set():
                listener.remove_termination_listener(tell_of_loss)
                await listener.remove_listener(channel, tell)
    raise Unavailable(f"the connection that listens to {channel} was lost")


def _pause_seconds(due: datetime | None, at_most_seconds: float) -> float:
    if due is None:
        return at_most_seconds
    return min(max((due - utc_now()).total_seconds(), _SHORTEST_PAUSE_SECONDS), at_most_seconds)
