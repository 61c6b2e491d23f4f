"""Lists are answered in pages."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from pydantic import Field, field_validator

from contracts.messages import Message

_MAX_START: Final = 2**31 - 1


class PageRequest(Message):
    """Which part of a list is wanted. A cursor, taken from an earlier page, replaces the offset."""

    limit: int = Field(default=50, ge=1, le=200)
    offset: int = Field(default=0, ge=0)
    cursor: str | None = None

    @field_validator("cursor")
    @classmethod
    def _is_of_a_list(cls, cursor: str | None) -> str | None:
        if cursor is not None and not _position(cursor) >= 0:
            raise ValueError(f"{cursor!r} is not a cursor of this list")
        return cursor

    @property
    def start(self) -> int:
        """How many entries to pass over."""
        start = self.offset if self.cursor is None else _position(self.cursor)
        return min(start, _MAX_START)

    def next_cursor(self, total: int) -> str | None:
        """The cursor of the page after this one; None after the last."""
        end = self.start + self.limit
        return urlsafe_b64encode(str(end).encode()).decode() if end < total else None


def _position(cursor: str) -> int:
    """Where a cursor stands; -1 for what was not made here."""
    try:
        return int(urlsafe_b64decode(cursor.encode()).decode())
    except ValueError:
        return -1
