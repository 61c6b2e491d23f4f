"""Free text that people write, as PostgreSQL can keep it."""

from typing import Annotated

from pydantic import AfterValidator


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text cannot hold the character NUL")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
"""Any text without NUL."""
