"""Programs that no wheel brings: made once, kept in the user's cache, and checked by hash whenever they are used."""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from platformdirs import user_cache_path

from shared.errors import Invalid

log = structlog.get_logger()


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
