"""Texts and numbers that people write, as PostgreSQL can keep them."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text cannot hold the character NUL")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
"""Any text without NUL."""


_DEEPEST: Final = 50
"""No server and no library on the way meets its own limit before this one."""


def _of_texts(values: dict[str, Any]) -> dict[str, Any]:
    pending: list[tuple[Any, int]] = [(values, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _DEEPEST:
            raise ValueError(f"values cannot be nested more than {_DEEPEST} deep")
        match value:
            case str():
                _without_nul(value)
            case dict():
                pending += [(inner, depth + 1) for inner in (*value.keys(), *value.values())]
            case list():
                pending += [(inner, depth + 1) for inner in value]
    return values


Values = Annotated[dict[str, Any], AfterValidator(_of_texts)]
"""A JSON object without NUL in its texts, and not nested too deep."""

_MOST: Final = 2**31 - 1


def _within_four_bytes(number: int) -> int:
    if not -_MOST <= number <= _MOST:
        raise ValueError(f"{number} is too large")
    return number


Number = Annotated[int, AfterValidator(_within_four_bytes)]
"""An integer of four bytes."""
