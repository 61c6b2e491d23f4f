"""Text in the headers of a message, which hold ASCII: anything else is written as in a URL."""

import string
from typing import Final
from urllib.parse import quote, unquote

_AS_IT_IS: Final = string.ascii_letters + string.digits + string.punctuation.replace("%", "") + " "


def to_header(text: object) -> str:
    """A header's value for a text, in one line."""
    return quote(" ".join(str(text).split()), safe=_AS_IT_IS)


def from_header(value: object) -> str:
    """The text of a header's value. What came with other bytes than ASCII is no `str` to the client."""
    return unquote(str(value))
