"""Which keys of the bucket are files of pipelines, and what they are called.

A file's name has a dot and a folder's name has none: so no key is both, and none hides another from a listing.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from contracts.names import Qualified
from shared.errors import Invalid

RESERVED: Final = "landing"
"""No pipeline, and no folder of one, is called so: who may write `*/landing/*` must not reach code."""

MAX_FILE_NAME: Final = 200
_FOLDER: Final = re.compile(r"[A-Za-z0-9_-]+")
_FILE: Final = re.compile(r"[A-Za-z0-9_. -]*\.[A-Za-z0-9_. -]*[A-Za-z0-9_-]")
_TEST: Final = re.compile(r"tests/quality/([^/]+)\.sql")

PipelineFileType = Literal["pipeline-sql", "pipeline-py", "config", "test", "file"]


class CodePath(NamedTuple):
    """The place of a file of a pipeline."""

    pipeline: Qualified
    file: str
    """Below the pipeline's folder."""

    @property
    def key(self) -> str:
        """The S3 key."""
        return self.pipeline.folder + self.file


def code_path(path: str) -> CodePath:
    """The pipeline and the file that a path names; `Invalid` says what is wrong with it."""
    _refuse_tricks(path)
    parts = path.split("/", 4)
    if len(parts) < 5 or parts[1] != "pipelines":
        raise Invalid(f"{path!r} is no file of a pipeline: those are called namespace/pipelines/layer/name/file")
    try:
        pipeline = Qualified.parse(".".join((parts[0], parts[2], parts[3])))
    except ValueError as error:
        raise Invalid(f"{path!r} is no file of a pipeline: {error}") from error
    if not is_file(parts[4]):
        raise Invalid(
            f"a pipeline cannot have a file {parts[4]!r}: names consist of letters, digits, '_', '-', '.' and blanks, "
            f"a file's name has a dot and a folder's has none, no folder is called {RESERVED!r}, "
            f"and there are {MAX_FILE_NAME} characters at the most"
        )
    return CodePath(pipeline, parts[4])


def is_file(file: str) -> bool:
    """Whether a pipeline can have a file of this name, given below its folder."""
    *folders, name = file.split("/")
    return (
        len(file) <= MAX_FILE_NAME
        and _FILE.fullmatch(name) is not None
        and all(_FOLDER.fullmatch(folder) is not None and folder != RESERVED for folder in folders)
    )


def file_type(file: str) -> PipelineFileType:
    """What a file of a pipeline is for."""
    match file:
        case "pipeline.sql":
            return "pipeline-sql"
        case "pipeline.py":
            return "pipeline-py"
        case "config.yaml":
            return "config"
    return "test" if _TEST.fullmatch(file) else "file"


def name_of_test(file: str) -> str | None:
    """The name of the quality test in this file; None if it holds none."""
    found = _TEST.fullmatch(file)
    return found[1] if found else None


def file_of_test(name: str) -> str:
    """Where the quality test of this name is, below the pipeline's folder."""
    return f"tests/quality/{name}.sql"


def listing_prefix(namespace: str, prefix: str) -> str | None:
    """What to list of a namespace for paths that begin with `prefix`; None if none of them can."""
    root = f"{namespace}/pipelines/"
    if root.startswith(prefix):
        return root
    return prefix if prefix.startswith(root) else None


def check_prefix(prefix: str) -> None:
    """Raise `Invalid` for the start of a path that no file of a pipeline can have."""
    _refuse_tricks(prefix)
    parts = prefix.split("/")
    if (len(parts) == 2 and not "pipelines".startswith(parts[1])) or (len(parts) > 2 and parts[1] != "pipelines"):
        raise Invalid(
            f"{prefix!r} is outside the folders of pipelines: those are called namespace/pipelines/layer/name/"
        )


def exclusions(text: str) -> tuple[str, ...]:
    """The names and globs of a comma-separated list."""
    return tuple(pattern for part in text.split(",") if (pattern := part.strip().rstrip("/")))


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether the path, a folder above it, or any part of it is among these names and globs."""
    parts = path.split("/")
    return any(
        fnmatchcase(path, pattern)
        or path.startswith(f"{pattern}/")
        or any(fnmatchcase(part, pattern) for part in parts)
        for pattern in patterns
    )


def _refuse_tricks(path: str) -> None:
    if "\0" in path or "\\" in path:
        raise Invalid(f"{path!r} holds NUL or a backslash")
    if path.startswith("/"):
        raise Invalid(f"{path!r} is absolute: paths begin with the namespace")
    if any(part in (".", "..") for part in path.split("/")):
        raise Invalid(f"{path!r} holds '.' or '..'")
    if len(path) > 1000:
        raise Invalid(f"a path of {len(path)} characters is too long")
