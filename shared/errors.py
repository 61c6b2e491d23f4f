"""What can go wrong, in the words of the API: raised anywhere, translated at the two edges (HTTP and bus)."""

from collections.abc import Mapping
from typing import Any, ClassVar


class RatError(Exception):
    """A failure with a code that a caller can act on and a message that a person can read.

    `details` is JSON and travels with the error through the bus, e.g. the validation of a publication.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class Invalid(RatError):
    """The request cannot be understood: it says which value, and what was expected."""

    code = "INVALID_ARGUMENT"


class Unauthenticated(RatError):
    """The caller did not say who it is."""

    code = "UNAUTHENTICATED"


class Forbidden(RatError):
    """The caller may not do this."""

    code = "FORBIDDEN"


class NotFound(RatError):
    """What was asked for does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(RatError):
    """Something of that name exists."""

    code = "ALREADY_EXISTS"


class Conflict(RatError):
    """The state of a thing does not allow this now."""

    code = "CONFLICT"


class Unprocessable(RatError):
    """The request is well formed, but what it names does not pass a check."""

    code = "UNPROCESSABLE"


class Exhausted(RatError):
    """A limit was reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(RatError):
    """A server or service cannot be reached now; the same request may succeed later."""

    code = "UNAVAILABLE"


class Declined(Unavailable):
    """A server was reached, and answered that it cannot do this now: a 500, a slow-down, its time ran out.

    To most it is the same as a server that cannot be reached; a run counts how often it tries again.
    """


class TimedOut(RatError):
    """The work took longer than it was allowed."""

    code = "DEADLINE_EXCEEDED"


class Internal(RatError):
    """A fault of ours; the log has the details."""

    code = "INTERNAL"


BY_CODE: Mapping[str, type[RatError]] = {
    error.code: error
    for error in (
        Invalid,
        Unauthenticated,
        Forbidden,
        NotFound,
        AlreadyExists,
        Conflict,
        Unprocessable,
        Exhausted,
        Unavailable,
        TimedOut,
        Internal,
    )
}
