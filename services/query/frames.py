"""What the service and its worker processes send each other over pipes: frames of a kind, a length and a body."""

import struct
from enum import IntEnum
from typing import Final, TypedDict

HEADER: Final = struct.Struct(">BI")


class Kind(IntEnum):
    """What a frame holds."""

    READY = 1
    """Nothing: the worker waits for a statement."""
    ASK = 2
    """A statement, as `Ask`."""
    NAMES = 3
    """What the statement names, as `Named`; then, by turns, what the views name that it reads."""
    RUN = 4
    """Where that is, as `Found`; the statement runs when no view names anything more."""
    ARROW = 5
    """A piece of the result as an Arrow IPC stream."""
    END = 6
    """How the result ended, as `Ended`."""
    ERROR = 7
    """Why there is no result, as `Failed`."""


class Ask(TypedDict):
    """A statement, and how many of its rows are wanted."""

    sql: str
    namespace: str
    limit: int


class Named(TypedDict):
    """The tables that a statement or a view names, in full, and whether it asks which tables there are."""

    tables: list[str]
    lists_tables: bool


class Found(TypedDict):
    """Where tables are, and what is to be said of those that are not."""

    locations: dict[str, str]
    """Table → location of its metadata."""
    views: dict[str, str]
    """View → its query."""
    columns: dict[str, list[tuple[str, str]]]
    """Table → names and types of its columns, for a statement that asks which tables there are."""
    known: list[str]
    """Names that may have been meant, where a table was not found."""


class Ended(TypedDict):
    """How many rows were sent, and whether there were more."""

    rows: int
    truncated: bool


class Failed(TypedDict):
    """An error of `shared.errors`, as it travels."""

    code: str
    message: str
    details: dict[str, int]


def frame(kind: Kind, body: bytes = b"") -> bytes:
    """A frame as bytes."""
    return HEADER.pack(kind, len(body)) + body
