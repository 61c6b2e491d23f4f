"""What is wrong with what somebody has sent: field by field, with what was there."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

_LONGEST: Final = 60
_TOLD_ALREADY: Final = ("missing", "extra_forbidden", "value_error", "assertion_error")
"""Kinds of problems whose message says all there is to say."""


def field_problems(error: ValidationError, *, whole: str) -> str:
    """All problems in one line; `whole` is what the thing is called that has the fields."""
    return told(error.errors(), whole=whole)


def told(problems: Iterable[Mapping[str, Any]], *, whole: str) -> str:
    """The same of problems as pydantic lists them."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or whole}: {problem['msg']}{_found(problem['type'], problem['input'])}"
        for problem in problems
    )


def _found(kind: str, value: Any) -> str:
    if kind in _TOLD_ALREADY or not isinstance(value, str | int | float):
        return ""
    shown = repr(value)
    return f", not {shown}" if len(shown) <= _LONGEST else f", not {shown[:_LONGEST]}…"
