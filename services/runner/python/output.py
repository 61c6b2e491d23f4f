"""What an author's code says while it runs, line by line into the run's log: print, warnings, logging, and what else
writes to the process's standard output or error.
"""

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import BinaryIO, Final, Literal, TextIO, TypeAlias

from services.runner.python.source import MODULE, PYTHON_FILE

Level: TypeAlias = Literal["info", "warning", "error"]
Tell: TypeAlias = Callable[[str, Level], None]
"""Writes a line into the run's log."""

_LONGEST_LINE: Final = 100_000
_MOST_BYTES: Final = 8_000_000
"""What the code of one run can say; endless output must neither fill the log nor keep the runner busy."""
_LAST_WORDS_SECONDS: Final = 1.0
"""How long is waited for what a process that the code has started, and left behind, still writes."""


class Told:
    """The lines that go to the log, until it is full."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._left = _MOST_BYTES
        self._lock = Lock()

    def line(self, line: str, level: Level = "info") -> None:
        """Write a line."""
        with self._lock:
            if self._left < 0:
                return
            shown = line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"
            self._left -= len(shown) + 100
            if self._left < 0:
                shown, level = "the code says too much: what follows of it is not kept", "warning"
        self._tell(shown, level)


class RunLog(logging.Logger):
    """What authors know as `log`: a logger of the standard library, whose lines go to the run's log."""

    def warn(self, message: object, *args: object) -> None:  # type: ignore[override]
        """Write a warning; Python itself has taken this name away."""
        self.warning(message, *args)


@contextmanager
def heard(told: Told) -> Iterator[RunLog]:
    """Have everything that is said in this process in the log while the block lasts, and give the author's logger."""
    handler = _Handler(told)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    log = RunLog("pipeline", logging.INFO)
    log.addHandler(handler)
    with _streams(told), warnings.catch_warnings():
        _choose_warnings()
        warnings.showwarning = _shown_by(told)
        try:
            yield log
        finally:
            root.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, told: Told) -> None:
        super().__init__()
        self._told = told
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "info" if record.levelno < logging.WARNING else "warning"
        try:
            line = self.format(record)
        except Exception:  # what is wrong with a message of the log fails no run, as in Python's own handlers
            self.handleError(record)
            return
        self._told.line(line, "error" if record.levelno >= logging.ERROR else level)


def _choose_warnings() -> None:
    """Those that Python shows of a script that is run by hand."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("default", category=DeprecationWarning, module=rf"{MODULE}\Z")


def _shown_by(told: Told) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        place = f"{PYTHON_FILE}:{lineno}: " if filename == PYTHON_FILE else ""
        told.line(f"{place}{category.__name__}: {message}", "warning")

    return show


# Streams


@contextmanager
def _streams(told: Told) -> Iterator[None]:
    """Standard output and error of Python go to the log at once; those of the process by a thread that reads them."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    before = sys.stdout, sys.stderr
    kept = os.dup(1), os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    lines = Thread(target=_read, args=(os.fdopen(reading, "rb"), told), daemon=True, name="output of the code")
    lines.start()
    raw = _Lines(told, 1), _Lines(told, 2)
    sys.stdout, sys.stderr = streams = _text(raw[0]), _text(raw[1])
    try:
        yield
    finally:
        for stream, begun in zip(streams, raw, strict=True):
            stream.flush()
            begun.finish()
        sys.stdout, sys.stderr = before
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        lines.join(_LAST_WORDS_SECONDS)


def _read(stream: BinaryIO, told: Told) -> None:
    lines = _Lines(told, 1)
    while content := stream.read1(65_536):  # type: ignore[attr-defined]
        lines.write(content)
    lines.finish()


def _text(raw: "_Lines") -> TextIO:
    buffer: BinaryIO = io.BufferedWriter(raw)  # type: ignore[type-var]  # a RawIOBase is all that it needs
    return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)


class _Lines(io.RawIOBase):
    """Bytes that become lines of the log as soon as each is whole."""

    def __init__(self, told: Told, number: int) -> None:
        super().__init__()
        self._told = told
        self._number = number
        self._begun = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        *whole, self._begun = (self._begun + bytes(content)).replace(b"\r\n", b"\n").split(b"\n")
        for line in whole:
            self._say(line)
        if len(self._begun) > _LONGEST_LINE:
            self._say(self._begun)
            self._begun = b""
        return len(content)

    def finish(self) -> None:
        """Say what was begun and not ended."""
        if self._begun:
            self._say(self._begun)
            self._begun = b""

    def _say(self, line: bytes) -> None:
        # A bar of progress writes over itself: what stands there in the end counts.
        self._told.line(line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace"))
