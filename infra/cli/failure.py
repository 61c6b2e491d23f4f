"""How a command ends when it does not succeed: one clear line, and a code that scripts can use."""

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What the command's exit code says."""

    OK = 0
    FAILED = 1
    """The platform refused, or what was asked for went wrong: a run failed, a file did not pass a check."""
    USAGE = 2
    """The command line cannot be understood."""
    UNREACHABLE = 3
    """No platform answers, or a part of it that is needed is away."""
    NOT_FOUND = 4
    """What is named does not exist."""


class Failure(Exception):
    """Ends the command with this message and exit code. `code` and `details` are the API's, for `--json`."""

    def __init__(
        self,
        message: str,
        exit_code: ExitCode = ExitCode.FAILED,
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code or exit_code.name
        self.details = details or {}
