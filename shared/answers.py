"""The answer to a query as a message: what was asked for, or an error that the asker raises as the same class."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
from faststream.exceptions import IgnoredException
from faststream.nats.message import NatsMessage
from faststream.response import Response
from nats.aio.msg import Msg
from pydantic import TypeAdapter, ValidationError

from contracts.messages import Query
from shared.errors import BY_CODE, Internal, Invalid, RatError, Unavailable
from shared.failures import NOT_UNDERSTOOD, TRANSIENT, reason

log = structlog.get_logger()

A = TypeVar("A")

_ERROR: Final = "rat-error"
"""The header of an answer that is an error: its code."""


async def answered(call_next: Callable[[Any], Awaitable[Any]], message: NatsMessage) -> Any:
    """Call the handler of a query, and give its answer or its error as one."""
    if (asker := message.raw_message.reply) and not asker.startswith("_INBOX"):
        # Who asks names the subject of the answer: it must not become an event that we are permitted to answer with.
        log.error("an answer is wanted on a subject that is no inbox", subject=message.raw_message.subject, reply=asker)
        raise IgnoredException
    try:
        return await call_next(message)
    except RatError as error:
        return _refusal(error)
    except NOT_UNDERSTOOD as error:
        return _refusal(Invalid(reason(error)))
    except TRANSIENT as error:
        log.warning("cannot answer now", subject=message.raw_message.subject, error=repr(error))
        return _refusal(Unavailable(f"a server that is needed cannot be reached: {type(error).__name__}"))
    except Exception:
        log.exception("query failed", subject=message.raw_message.subject)
        return _refusal(Internal("internal error; the service's log has the details"))


def read_answer(query: Query[A], reply: Msg) -> A:
    """What was answered to a query; an error that was answered is raised."""
    code = (reply.headers or {}).get(_ERROR)
    if code is not None:
        refusal = json.loads(reply.data)
        raise BY_CODE.get(code, Internal)(refusal["message"], details=refusal["details"])
    adapter: TypeAdapter[A] = _adapter(query.answer)
    try:
        return adapter.validate_json(reply.data or b"null")
    except ValidationError as error:
        # Not the asker's mistake: nobody must take it for one.
        log.exception("an answer cannot be understood", subject=query.address())
        raise Internal(f"the answer to {query.address()} cannot be understood; the log has the details") from error


def _refusal(error: RatError) -> Response:
    body = json.dumps({"message": error.message, "details": error.details}, default=str).encode()
    return Response(body, headers={_ERROR: error.code})


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(answer: Any) -> TypeAdapter[Any]:
    if answer not in _adapters:
        _adapters[answer] = TypeAdapter(answer)
    return _adapters[answer]
