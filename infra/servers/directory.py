"""The data directory of a stack: where what lies, and who holds it."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import structlog

from shared.errors import Conflict, Invalid

log = structlog.get_logger()

_EXECUTABLES: Final = frozenset({"postgres", "initdb", "nats-server", "weed", "minio", "java", "sh"})
_GUARDIAN_SECONDS: Final = 3.0
"""How long the guardian of a killed stack is given to stop its servers."""
_LEFTOVER_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Claim:
    """A data directory that this process holds."""

    directory: Path
    lock: int
    """Descriptor of the lock file. Every server inherits it: the lock is free once the last of them is gone."""

    def dedicate(self, stack: str) -> None:
        """Keep the directory for the data of one kind of stack; `Invalid` when it holds that of another.

        The servers of both would take each other's data for their own.
        """
        record = self.directory / "stack"
        if record.exists():
            found = record.read_text().strip()
        else:
            # Before this was written down, there was one kind of stack.
            found = "embedded" if (self.directory / "postgres").exists() else stack
        if found != stack:
            raise Invalid(f"{self.directory} holds the data of the {found} stack, not of the {stack} one: name another")
        if not record.exists():
            write_privately(record, f"{stack}\n")

    def empty_folder(self, name: str) -> Path:
        """The folder without what a process that was killed left in it."""
        shutil.rmtree(self.directory / name, ignore_errors=True)
        return self.folder(name)

    def folder(self, name: str) -> Path:
        """A folder in the directory that only its owner may enter, made if it is missing."""
        path = self.directory / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path


def absolute(directory: Path) -> Path:
    """The directory, wherever this process stands."""
    return directory.expanduser().resolve()


@asynccontextmanager
async def claimed(directory: Path) -> AsyncIterator[Claim]:
    """Hold a data directory, made if it is missing, until the block is left.

    `Conflict` when a living process holds it. What a process that was killed left running is ended first.
    """
    lock = _open_lock(directory)
    try:
        await _take(directory, lock)
        _write_holder(lock)
        yield Claim(directory, lock)
    finally:
        os.close(lock)


def holder_of(directory: Path) -> int | None:
    """The process that holds a data directory, if one does and is alive."""
    try:
        lock = os.open(directory / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        return _living_holder(lock, directory / "lock")
    finally:
        os.close(lock)


def write_privately(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)


def _open_lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Invalid(f"{directory} cannot hold the data of the platform: {error.strerror}") from error


async def _take(directory: Path, lock: int) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    has_killed = False
    while not _try_lock(lock):
        if (holder := _living_holder(lock, directory / "lock")) is not None:
            raise Conflict(f"{directory} is in use by process {holder}")
        waited = loop.time() - started
        if waited > _GUARDIAN_SECONDS and not has_killed:
            has_killed = True
            await asyncio.to_thread(end_holders, directory / "lock", _EXECUTABLES)
        if waited > _GUARDIAN_SECONDS + _LEFTOVER_SECONDS:
            raise Conflict(f"{directory} is locked, but not by a process that can be seen from here")
        await asyncio.sleep(0.02)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _living_holder(lock: int, path: Path) -> int | None:
    try:
        process = psutil.Process(int(os.pread(lock, 20, 0)))
        holds = _has_open(process, path)
    except psutil.AccessDenied:  # somebody else's, and alive
        return process.pid
    except (ValueError, psutil.Error):  # it is about to write its name, or it is gone
        return None
    return process.pid if holds else None


def end_holders(lock: Path, names: Collection[str]) -> None:
    """Kill the processes of these names that have the lock open, until none has."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while (holders := list(_holders(lock, names))) and time.monotonic() < deadline:
        for process in holders:
            log.warning("a process outlived its parent", pid=process.pid)
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)


def _holders(lock: Path, names: Collection[str]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            holds = process.name() in names and _has_open(process, lock)
        except psutil.Error:
            continue
        if holds:
            yield process


def _has_open(process: psutil.Process, path: Path) -> bool:
    return any(file.path == str(path) for file in process.open_files())
