"""The servers of a stack by themselves, for services that run as processes of their own."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import psutil
from pydantic import BaseModel

from infra.servers.directory import absolute, holder_of, write_privately
from infra.stacks.stack import Stack
from infra.stacks.table import started
from shared.background import background, every
from shared.errors import Conflict, NotFound, Unavailable
from shared.settings import Settings

FILE_NAME: Final = "servers.json"
ENVIRONMENT_NAME: Final = "servers.env"

_NEWS_SECONDS: Final = 0.5
_START_SECONDS: Final = 900.0
"""MinIO may have to be built first."""
_STOP_SECONDS: Final = 90.0


class ServerState(BaseModel, frozen=True):
    """How one server is."""

    name: str
    state: Literal["ready", "starting", "down"]
    pid: int | None
    log: str


class RunningServers(BaseModel, frozen=True):
    """What runs on a data directory, as whoever runs it last said."""

    stack: str
    pid: int
    environment: str
    """The file with the settings of services that are to use these servers."""
    servers: list[ServerState]

    @property
    def are_ready(self) -> bool:
        """Whether all of them are."""
        return all(server.state == "ready" for server in self.servers)


@asynccontextmanager
async def servers_alone(kind: str, data: Path, *, gateway_port: int) -> AsyncIterator[RunningServers]:
    """Run the servers of a stack until the block is left; they are ready when it begins.

    Meanwhile two files in the directory, for their owner only, tell others how they are and how to use them.
    """
    async with started(kind, data, gateway_port=gateway_port) as stack:
        news, environment = stack.directory / FILE_NAME, stack.directory / ENVIRONMENT_NAME
        write_privately(environment, environment_text(stack.settings))
        said: list[RunningServers] = []

        async def tell() -> None:
            now = _running(kind, stack)
            if said[-1:] != [now]:
                said[:] = [now]
                await asyncio.to_thread(write_privately, news, now.model_dump_json(indent=2) + "\n")

        try:
            await tell()
            async with background(lambda: every(_NEWS_SECONDS, tell)):
                yield said[-1]
        finally:
            news.unlink(missing_ok=True)
            environment.unlink(missing_ok=True)


def environment_text(settings: Settings) -> str:
    """These settings as lines that a shell can read in, secrets included."""
    head = "# For `rat serve`: set -a; . this file; set +a"
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.environment().items()]
    return "\n".join([head, *lines]) + "\n"


def running_servers(data: Path) -> RunningServers:
    """How the servers on a directory are; `NotFound` when none are run there, `Unavailable` until they are ready."""
    directory = absolute(data)
    holder = holder_of(directory)
    if holder is None:
        raise NotFound(f"no servers run on {directory}")
    try:
        found = RunningServers.model_validate_json((directory / FILE_NAME).read_text())
    except FileNotFoundError:
        found = None
    # What one that was killed left behind is not about the one that holds the directory now.
    if found is None or found.pid != holder:
        raise Unavailable(f"process {holder} holds {directory}: it is starting or stopping, or it is a `rat up`")
    return found


def start_detached(kind: str, data: Path, *, gateway_port: int) -> RunningServers:
    """Run the servers in a process of their own that outlives this one; returns when they are ready.

    `Conflict` when the directory is in use, `Unavailable`, with what it said, when the process ends instead.
    """
    directory = absolute(data)
    if (holder := holder_of(directory)) is not None:
        raise Conflict(f"{directory} is in use by process {holder}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = directory / "servers.log"
    arguments = ["servers", "up", "--stack", kind, "--data", str(directory), "--port", str(gateway_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from infra.cli import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    try:
        return _when_ready(process, directory, log)
    except BaseException:
        # In a session of its own it hears nothing of a Ctrl-C.
        process.terminate()
        raise


def _when_ready(process: subprocess.Popen[bytes], directory: Path, log: Path) -> RunningServers:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"the servers did not start:\n{log.read_text(errors='replace').strip()}")
        try:
            found = running_servers(directory)
        except (NotFound, Unavailable):
            found = None
        if found is not None and found.pid == process.pid:
            return found
        time.sleep(0.1)
    raise Unavailable(f"the servers are not ready after {_START_SECONDS:g} s; see {log}")


def stop_servers(data: Path) -> int:
    """Stop what holds a directory, and return its process id when it is gone; `NotFound` when nothing does."""
    directory = absolute(data)
    holder = holder_of(directory)
    if holder is None:
        raise NotFound(f"no servers run on {directory}")
    try:
        process = psutil.Process(holder)
        os.kill(holder, signal.SIGTERM)
    except (psutil.NoSuchProcess, ProcessLookupError):  # it ended meanwhile
        return holder
    _, alive = psutil.wait_procs([process], timeout=_STOP_SECONDS)
    if alive:
        raise Unavailable(f"process {holder} has not stopped after {_STOP_SECONDS:g} s")
    return holder


def _running(kind: str, stack: Stack) -> RunningServers:
    return RunningServers(
        stack=kind,
        pid=os.getpid(),
        environment=str(stack.directory / ENVIRONMENT_NAME),
        servers=_states(stack, stack.servers),
    )


def _states(stack: Stack, names: Sequence[str]) -> list[ServerState]:
    pids, ready = stack.pids, stack.ready
    return [
        ServerState(
            name=name,
            state="ready" if name in ready else "starting" if name in pids else "down",
            pid=pids.get(name),
            log=str(stack.directory / "logs" / f"{name}.log"),
        )
        for name in names
    ]
