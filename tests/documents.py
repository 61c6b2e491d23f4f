"""The code that a document shows, for tests that run it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Block:
    """A block of code whose first line is a comment that says its path."""

    path: str
    text: str


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document, in order."""
    found = re.findall(r"^```\w+\n(?:#|--) (\S+\.\w+)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return (Block(path, text) for path, text in found)
