"""What is wrong with an author's files, with the line where it is, and how an attempt's work fails."""

from dataclasses import dataclass

from contracts.pipelines import FileProblem
from services.runner.domain import FailureKind


@dataclass(frozen=True)
class Problem:
    """Something wrong with an author's file."""

    path: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)
        return f"{place}: {self.message}"

    def in_file(self) -> FileProblem:
        """The problem as an answer about that file tells it."""
        return FileProblem(line=self.line, column=self.column, message=self.message)


class AuthorError(Exception):
    """The files of a pipeline cannot be run as they are."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Unsure(AuthorError):
    """What is wrong in a rehearsal may be right in a run, which has these parameters."""

    def __init__(self, parameters: tuple[str, ...], *problems: Problem) -> None:
        super().__init__(*problems)
        self.parameters = parameters


class WorkFailed(Exception):
    """The work on an attempt cannot go on."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
