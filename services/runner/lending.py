"""The key of the object store that a process has while it works: given when it is needed, and anew before it ends."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from contracts.names import Qualified
from services.runner.frames import UseKey
from services.runner.keys import RunKeys
from services.runner.pool import Process, ProcessLost
from services.runner.watch import end_all
from shared.errors import RatError
from shared.temporary_keys import TemporaryKey

_AGAIN_SECONDS: Final = 5.0
"""How long after a new key was refused it is asked for again."""


@dataclass
class Lending:
    """A key that is lent to a process, for one attempt or one look."""

    keys: RunKeys
    process: Process
    name: str
    """What the store calls whoever uses the key."""
    zones_of: set[str]
    """The namespaces whose landing zones it may read."""
    writes: Qualified | None = None
    """The table that it may write."""
    _within: timedelta = timedelta(hours=1)
    _making: asyncio.Task[TemporaryKey | None] | None = None
    _given: TemporaryKey | None = None
    _renewing: asyncio.Task[None] | None = field(default=None)

    def expect(self, seconds: float) -> None:
        """Begin to make a key for work that may take so long."""
        longer = timedelta(seconds=seconds)
        if self._making is None or longer > self._within:
            self._within = longer
            self._begin()

    async def give(self, zones_of: str | None = None) -> None:
        """See to it that the process has a key, one that reads the landing zones of this namespace, too."""
        if zones_of is not None and zones_of not in self.zones_of:
            self.zones_of.add(zones_of)
            await end_all(self._making)
            self._making = None
        if self._making is None:
            self._begin()
        assert self._making is not None, "it was begun"
        key = await self._making
        if key is None or key is self._given:
            return
        await self._send(key)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew_for_ever())

    async def end(self) -> None:
        """Make no more keys."""
        await end_all(self._making, self._renewing)

    def _begin(self) -> None:
        self._making = asyncio.create_task(self._make())

    async def _make(self) -> TemporaryKey | None:
        if self.writes is None:
            return await self.keys.reading(self.zones_of, name=self.name, within=self._within)
        return await self.keys.writing(self.writes, self.zones_of, name=self.name, within=self._within)

    async def _send(self, key: TemporaryKey) -> None:
        token = key.key.session_token
        await self.process.send(
            UseKey(
                access_key_id=key.key.access_key_id,
                secret_access_key=key.key.secret_access_key.get_secret_value(),
                session_token=token.get_secret_value() if token is not None else "",
            )
        )
        self._given = key

    async def _renew_for_ever(self) -> None:
        """Give a new key in the place of each before it ends; what is under way goes on with the old one."""
        pause = self.keys.renewed_after.total_seconds()
        while True:
            await asyncio.sleep(pause)
            try:
                key = await self._make()
                assert key is not None, "there was one before"
                await self._send(key)
                pause = self.keys.renewed_after.total_seconds()
            except ProcessLost:
                return
            except RatError:
                # The one it has is good for a while.
                pause = _AGAIN_SECONDS
