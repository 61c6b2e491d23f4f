"""Whoever asks for an answer in chunks can be cancelled at any moment."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.bus import Bus
from shared.chunks import asking


class DeafBus:
    """A bus whose questions take their time to give up."""

    service = "gateway"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.is_giving_up = asyncio.Event()
        self.connection = self

    async def subscribe(self, _inbox: str) -> Any:
        return SimpleNamespace(unsubscribe=self.drain)

    async def drain(self) -> None:
        pass

    async def ask(self, _query: Any, **_options: Any) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.is_giving_up.set()
            await asyncio.sleep(0.2)


async def test_an_asker_that_is_cancelled_while_its_question_ends_does_not_go_on():
    bus = DeafBus()

    async def ask() -> None:
        async with asking(cast("Bus", bus), lambda _inbox: cast("Any", None)):
            await bus.asked.wait()

    asker = asyncio.create_task(ask())
    await bus.is_giving_up.wait()
    asker.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asker
