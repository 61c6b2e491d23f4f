"""Texts and numbers that people write, as PostgreSQL can keep them."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text cannot hold the character NUL")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
"""Any text without NUL."""


def _of_texts(values: dict[str, Any]) -> dict[str, Any]:
    pending: list[Any] = [values]
    while pending:
        match pending.pop():
            case str() as text:
                _without_nul(text)
            case dict() as inner:
                pending += [*inner.keys(), *inner.values()]
            case list() as items:
                pending += items
    return values


Values = Annotated[dict[str, Any], AfterValidator(_of_texts)]
"""A JSON object without NUL in its texts."""

_MOST: Final = 2**31 - 1


def _within_four_bytes(number: int) -> int:
    if not -_MOST <= number <= _MOST:
        raise ValueError(f"{number} is too large")
    return number


Number = Annotated[int, AfterValidator(_within_four_bytes)]
"""An integer of four bytes."""
