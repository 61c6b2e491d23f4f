"""Pages of lists that fit into one message."""

from collections.abc import Sequence
from typing import Final, TypeVar

from contracts.messages import Message
from contracts.paging import PageRequest

MAX_PAGE_BYTES: Final = 200 * 1024
"""What is left over of a message is for its frame."""

M = TypeVar("M", bound=Message)


def fits(entry: Message) -> bool:
    """Whether one message holds an entry."""
    return len(entry.model_dump_json().encode()) <= MAX_PAGE_BYTES


def fitting(entries: Sequence[M]) -> list[M]:
    """As many of the first entries as one message holds, one at least."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.model_dump_json().encode())
        if size > MAX_PAGE_BYTES and count > 0:
            return list(entries[:count])
    return list(entries)


def cursor_after(query: PageRequest, entries: Sequence[Message], total: int) -> str | None:
    """The cursor of what follows these entries, which may be fewer than were asked for; None after the last."""
    start = query.start
    if not entries or start + len(entries) >= total:
        return None
    return PageRequest(limit=len(entries), offset=start).next_cursor(total)
