"""What a process of the pool keeps warm, and the runner that it talks to."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import BinaryIO, Literal, TypeVar

import duckdb

from contracts.messages import Message, utc_now
from contracts.runs import LogLine
from services.runner.engine.sniffing import Sniffed
from services.runner.engines import Engines
from services.runner.frames import Interrupt, Logged, ToProcess, UseKey, frame, read_in_process
from shared.lakehouse.branch_catalog import BranchCatalog

A = TypeVar("A", bound=Message)


class Parent:
    """The runner that this process belongs to."""

    def __init__(self, receive: BinaryIO, send: BinaryIO) -> None:
        self._send = send
        self._sending = Lock()
        self._asking = Lock()
        self._received: SimpleQueue[ToProcess] = SimpleQueue()
        self.interrupt: Callable[[], object] = lambda: None
        """Stops what goes on; called by the thread that listens, whatever the others do."""
        self.use_key: Callable[[UseKey], object] = lambda key: None
        """Goes on with another key of the object store; called likewise."""
        Thread(target=self._receive_for_ever, args=(receive,), daemon=True, name="parent").start()

    def say(self, message: Message) -> None:
        """Send a message."""
        with self._sending:
            self._send.write(frame(message))
            self._send.flush()

    def hear(self) -> ToProcess:
        """Wait for the next message."""
        return self._received.get()

    def ask(self, question: Message, answer: type[A]) -> A:
        """Send a message and wait for the one that answers it."""
        with self._asking:
            self.say(question)
            heard = self.hear()
        assert isinstance(heard, answer), f"{type(question).__name__} was answered by {type(heard).__name__}"
        return heard

    def log(self, message: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """Write a line into the run's log."""
        self.say(Logged(line=LogLine(timestamp=utc_now(), level=level, message=sayable(message))))

    def _receive_for_ever(self, receive: BinaryIO) -> None:
        while True:
            try:
                heard = read_in_process(receive)
            except EOFError:
                # Whoever reads what we do is gone: nothing of it may go on, no query and no commit.
                os._exit(0)
            match heard:
                case Interrupt():
                    self.interrupt()
                case UseKey():
                    self.use_key(heard)
                case _:
                    self._received.put(heard)


def sayable(text: str) -> str:
    """The text as JSON can hold it: half a character, which an author's Python may come to, becomes `?`."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True)
class Workplace:
    """What a process keeps warm from attempt to attempt."""

    parent: Parent
    engines: Engines
    catalog_of: Callable[[str], BranchCatalog]
    threads: int
    memory_limit_bytes: int
    sniffed: Sniffed

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB for queries."""
        return self.engines.connection

    @property
    def bucket(self) -> str:
        """The platform's bucket."""
        return self.engines.bucket
