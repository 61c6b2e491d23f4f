"""Errors as the API tells them: `application/problem+json` (RFC 9457) with the member `error`."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from pydantic import ValidationError

from shared.errors import Forbidden, Internal, Invalid, NotFound, RatError, Unauthenticated, Unavailable
from shared.failures import TRANSIENT
from shared.fields import field_problems, told

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "CONFLICT": 409,
    "UNPROCESSABLE": 422,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

PROBLEM_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "What went wrong (RFC 9457). Details of an error are members of their own.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "enum": list(STATUS)},
                "type": {"type": "string"},
                "message": {"type": "string"},
            },
            "required": ["code", "type", "message"],
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "error"],
}
"""The shape of `problem`, for OpenAPI."""

_OF_STATUS: Final[Mapping[int, type[RatError]]] = {401: Unauthenticated, 403: Forbidden, 404: NotFound}
_NO_BODY: Final = "data: 'data'"
"""How Litestar says that there is none."""
_RESERVED: Final = frozenset({"type", "title", "status", "detail", "instance", "error"})


def as_error(raised: BaseException) -> RatError:
    """What was raised, as an error of ours; what nobody foresaw says nothing of its reason."""
    match raised:
        case RatError():
            return raised
        case ValidationError():
            return Invalid(field_problems(raised, whole="body"))
        case ValidationException(extra=[*problems]):
            # What pydantic has against a body is told with what was there, which Litestar leaves out.
            found = getattr(raised.__cause__, "errors", None)
            return Invalid(told(found, whole="body") if found else _told(problems))
        case RecursionError():
            return Invalid("what was sent is nested too deep")
        case NotFoundException():
            return NotFound("there is nothing at this path")
        case HTTPException() if raised.status_code < 500:
            return _OF_STATUS.get(raised.status_code, Invalid)(raised.detail or HTTPStatus(raised.status_code).phrase)
        case _ if isinstance(raised, TRANSIENT):
            # Such as the database of the tokens.
            return Unavailable(f"a server that is needed cannot be reached: {type(raised).__name__}")
        case _:
            return Internal("internal error; the log has the details under the request's id")


def _told(problems: Iterable[Mapping[str, Any]]) -> str:
    """What Litestar finds wrong, field by field."""
    told = "; ".join(f"{problem.get('key') or 'body'}: {problem.get('message', '')}" for problem in problems)
    return "a body in JSON is needed" if told == _NO_BODY else told


def status_of(error: RatError, raised: BaseException) -> int:
    """The status of the answer."""
    if isinstance(raised, HTTPException) and raised.status_code in (405, 413, 415):
        return raised.status_code
    return STATUS[error.code]


def problem(error: RatError, status: int, path: str) -> dict[str, Any]:
    """The body of the answer; the error's details become members of their own."""
    details = {key: value for key, value in error.details.items() if key not in _RESERVED}
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "instance": path,
        "error": {"code": error.code, "type": error.code.lower(), "message": error.message},
        **details,
    }
