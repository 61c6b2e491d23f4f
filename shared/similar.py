"""Words that are not known, and the known one that may have been meant; for messages to people."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

_ALIKE: Final = 0.6
"""From here on two words may be one word and its misspelling, as `difflib` measures it."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that may have been meant by one that is not known.

    Of names with several parts (`default.bronze.orders`, `default/orders`) the last ones must be alike: the others are
    often the same.
    """
    alike = [str(one) for one in known if _likeness(_last(word), _last(str(one))) >= _ALIKE]
    return max(alike, key=lambda one: _likeness(word, one), default=None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known: the one that was meant, or nothing."""
    meant = closest(word, known)
    return "" if meant is None else f", did you mean {meant!r}?"


def expected(word: str, known: Iterable[str]) -> str:
    """The same for a word out of a few: the one that was meant, or all of them."""
    names = [str(name) for name in known]
    return did_you_mean(word, names) or f", expected one of {', '.join(names)}"


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()
