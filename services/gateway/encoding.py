"""Answers as JSON: times in UTC with microseconds, and no `next_cursor` after the last page."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from pydantic import BaseModel


def plain(value: Any) -> Any:
    """A contract's model, or anything in it, as what JSON knows."""
    match value:
        case BaseModel():
            return {
                name: plain(getattr(value, name))
                for name in type(value).model_fields
                if not (name == "next_cursor" and value.next_cursor is None)  # type: ignore[attr-defined]
            }
        case datetime():
            return time_text(value)
        case Enum():
            return value.value
        case UUID():
            return str(value)
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return value


def time_text(moment: datetime) -> str:
    """RFC 3339 with microseconds, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def json_bytes(value: Any) -> bytes:
    """The value as JSON."""
    return msgspec.json.encode(plain(value))
