"""The code of pipelines as files: listed, read, written and deleted one by one.

A path is the S3 key, `{namespace}/pipelines/{layer}/{name}/{file}`; what is not in the folder of a pipeline is Invalid.
"""

import json
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from contracts.messages import Message, Query
from contracts.paging import PageRequest

MAX_CODE_BYTES: Final = 200 * 1024
"""The largest file of a pipeline that the API reads or writes: it has to fit into a message."""

_MAX_JSON_BYTES: Final = 240 * 1024


def fits_into_a_message(content: str) -> str:
    """The same content; `ValueError` if it is larger than a file of a pipeline may be."""
    if (size := len(content.encode())) > MAX_CODE_BYTES:
        raise ValueError(f"a file of a pipeline may have 200 KiB at the most, this one has {size / 1024:.0f} KiB")
    if (size := len(json.dumps(content, ensure_ascii=False).encode())) > _MAX_JSON_BYTES:
        raise ValueError(
            f"a file of a pipeline may have 240 KiB as JSON at the most, this one has {size / 1024:.0f} KiB"
        )
    return content


Code = Annotated[str, AfterValidator(fits_into_a_message)]
"""The text of a file, at most 200 KiB of it."""


class CodeFile(Message):
    """A file of a pipeline, as lists show it."""

    path: str
    size: int
    modified: datetime
    type: Literal["pipeline-sql", "pipeline-py", "config", "test", "file"]
    version_id: str


class CodeFiles(Message):
    """A page of files. It may hold fewer than were asked for: `next_cursor` tells whether there are more."""

    files: list[CodeFile]
    total: int
    next_cursor: str | None = None


class ListCodeFiles(Query[CodeFiles], PageRequest, subject="catalog.list_code_files"):
    """List the current files of pipelines by path."""

    limit: int = Field(default=200, ge=1, le=200)
    prefix: str = Field(default="", max_length=1000)
    """What the paths begin with: any start of a path, as `default/pipelines/bronze/`."""
    exclude: str = Field(default="", max_length=1000)
    """Comma-separated names or globs (`tests, *.md`): a path is left out if it, or any part of it, matches one."""


class CodeFileContent(Message):
    """A file of a pipeline with its text."""

    path: str
    content: str
    size: int
    modified: datetime
    version_id: str


class ReadCodeFile(Query[CodeFileContent], subject="catalog.read_code_file"):
    """Read a file of a pipeline's draft; NotFound if it does not exist, Unprocessable if it is too large or no text."""

    path: str


class CodeFileWritten(Message):
    """The new version of a file that was written."""

    path: str
    status: Literal["written"] = "written"
    version_id: str


class WriteCodeFile(Query[CodeFileWritten], subject="catalog.write_code_file"):
    """Write a file of a pipeline's draft.

    NotFound if there is no such pipeline, Conflict if the file's version is not the one in `if_match`.
    """

    path: str
    content: Code
    if_match: str | None = None
    """The version id that the file must have now."""


class DeleteCodeFile(Query[None], subject="catalog.delete_code_file"):
    """Delete a file of a pipeline's draft; its versions stay. NotFound if it does not exist."""

    path: str
