"""Lists are answered in pages."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from pydantic import Field

from contracts.messages import Message


class PageRequest(Message):
    """Which part of a list is wanted. A cursor, taken from an earlier page, replaces the offset."""

    limit: int = Field(default=50, ge=1, le=200)
    offset: int = Field(default=0, ge=0)
    cursor: str | None = None

    @property
    def start(self) -> int:
        """How many entries to pass over; `ValueError` for a cursor that was not made here."""
        if self.cursor is None:
            return self.offset
        try:
            return int(urlsafe_b64decode(self.cursor.encode()).decode())
        except ValueError as error:
            raise ValueError(f"{self.cursor!r} is not a cursor of this list") from error

    def next_cursor(self, total: int) -> str | None:
        """The cursor of the page after this one; None after the last."""
        end = self.start + self.limit
        return urlsafe_b64encode(str(end).encode()).decode() if end < total else None
