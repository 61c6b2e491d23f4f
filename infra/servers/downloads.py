"""Programs that no wheel brings: made once, kept in the user's cache, and checked by hash whenever they are used."""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import structlog
from platformdirs import user_cache_path

from shared.errors import Invalid, Unavailable

log = structlog.get_logger()

LONG_SECONDS: Final = 1800.0
"""After which something hangs that is fetched or built: it takes minutes on a slow machine."""
_SAID_BYTES: Final = 2000


def kept_file(name: str, version: str, make: Callable[[Path], None], *, sha256: str | None = None) -> Path:
    """The file of this name and version in the cache.

    If it is missing, or not what it was when it was made, `make` is called to put it into an empty folder. A file that
    is the same everywhere has its hash given; of one that is built here, the hash is written down beside it. `Invalid`
    when what was made is not what the hash says.
    """
    folder = user_cache_path("rat", appauthor=False) / "servers" / f"{name}-{version}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, record = folder / name, folder / f"{name}.sha256"
    with _held(folder / "lock"):
        expected = sha256 or _recorded(record)
        if path.exists() and expected is not None and hash_of(path) == expected:
            return path
        log.info("a program is fetched, which takes a while", program=name, version=version, folder=str(folder))
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            make(Path(draft))
            made = hash_of(Path(draft) / name)
            if sha256 is not None and made != sha256:
                raise Invalid(f"{name} {version} has the SHA-256 {made}; it should be {sha256}")
            (Path(draft) / name).replace(path)
        record.write_text(made)
    return path


def needed_program(name: str, *, purpose: str, install: str) -> str:
    """The path of a program of the system, or of a wheel; `Invalid`, with what to install, where there is none."""
    beside = str(Path(sys.executable).parent)
    path = shutil.which(name, path=beside) or shutil.which(name)
    if path is None:
        raise Invalid(f"{purpose} needs {name!r}, which is not on PATH: {install}")
    return path


def run_to_its_end(
    command: Sequence[str], *, what: str, folder: Path, environment: Mapping[str, str], within_seconds: float
) -> None:
    """Run what fetches or builds something; `Unavailable`, with the end of what it said, if it fails or hangs."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=environment
        )
        try:
            code = process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
        if code == 0:
            return
        failed = f"failed with exit code {code}" if code is not None else f"was not done after {within_seconds:g} s"
        output.seek(0)
        said = output.read()[-_SAID_BYTES:].decode(errors="replace").strip()
        raise Unavailable(f"{what} {failed}: {shlex.join(command)}\n{said or 'It said nothing.'}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has not ended, with those that it has started: a compiler, a JVM."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for each in started:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(record: Path) -> str | None:
    try:
        return record.read_text().strip()
    except FileNotFoundError:
        return None


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Let others that want the same file wait until the block is left."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
