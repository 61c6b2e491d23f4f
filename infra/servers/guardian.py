"""The guardian: a process that ends the servers when the one that started them is gone, however it went."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_WATCH: Final = "trap '' HUP INT QUIT TERM; read -r _; kill -s INT 0; sleep 1; kill -s KILL 0"
"""Reads until the pipe from its parent ends, then interrupts its process group and soon after kills it."""


@contextmanager
def guardian(lock: int) -> Iterator[int]:
    """Run a guardian until the block is left, and give the process group that the servers are to be started in.

    The kernel closes the pipe when this process dies, also by SIGKILL. A server that is just being started holds
    the pipe until it runs, and by then it is in the group: none is forgotten.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        pass_fds=[lock],
        process_group=0,
    )
    try:
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
