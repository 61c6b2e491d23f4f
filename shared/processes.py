"""Ending processes that others' work runs in."""

import os
import signal
from asyncio.subprocess import Process
from contextlib import suppress


async def kill(process: Process) -> None:
    """End a process at once, with all that it started in its session, and wait until it is gone.

    It must have been started with pipes and as the leader of a session. What it wrote and nobody read is dropped.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # asyncio tells of a process's end only when its pipes have ended too. One that is full is not read any more, one
    # that another process holds stays open: only closing them from here ends every wait.
    process._transport.close()  # type: ignore[attr-defined]
    await process.wait()
