"""How a process shows that its loop turns, to whoever looks after it."""

import asyncio
from pathlib import Path
from typing import Final

from shared.settings import Settings

_ALIVE_SECONDS: Final = 5.0


async def stay_alive(settings: Settings) -> None:
    """Touch the file that the settings name, if they name one, every few seconds, until the task is cancelled."""
    while settings.alive_file is not None:
        await asyncio.to_thread(Path(settings.alive_file).touch)
        await asyncio.sleep(_ALIVE_SECONDS)
    await asyncio.Event().wait()
