"""What is wrong with an author's files, with the line where it is, and how an attempt's work fails."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

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


class WorkFailed(Exception):
    """The work on an attempt cannot go on."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that may have been meant by one that is not known."""
    names = {str(name).lower(): str(name) for name in known}
    close = get_close_matches(word.lower(), names, n=1)
    return names[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known: the one that was meant, or nothing."""
    meant = closest(word, known)
    return "" if meant is None else f", did you mean {meant!r}?"


def expected(word: str, known: Iterable[str]) -> str:
    """The same for a word out of a few: the one that was meant, or all of them."""
    names = [str(name) for name in known]
    return did_you_mean(word, names) or f", expected one of {', '.join(names)}"
