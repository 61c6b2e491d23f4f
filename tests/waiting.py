"""Waiting for conditions, in place of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

ASKING_SECONDS: Final = 0.2
"""Between two questions to the platform while it works: asked all the time, it would do little else."""


async def eventually(check: Callable[[], T | Awaitable[T]], *, within: float = 60.0, pause: float = 0.02) -> T:
    """Repeat the check until what it answers is true, and return that; what it raises is a "not yet" as well.

    When the time is over, the last error is raised, or an AssertionError with the last answer.
    """
    deadline = time.monotonic() + within
    while True:
        error: Exception | None = None
        answer: T | None = None
        try:
            result = check()
            answer = await result if inspect.isawaitable(result) else result
            if answer:
                return answer
        except (Exception, AssertionError) as raised:
            error = raised
        if time.monotonic() > deadline:
            raise error or AssertionError(f"not within {within} seconds; the last answer was {answer!r}")
        await asyncio.sleep(pause)
