"""What becomes of a message whose handling fails: whether another try may mend it, when that is, and what is said."""

import asyncio
from typing import Final

import asyncpg
import nats.errors
from fast_depends.exceptions import ValidationError as CallInvalid
from pydantic import ValidationError

from shared.errors import Conflict, RatError, TimedOut, Unavailable
from shared.fields import field_problems

TRANSIENT: Final = (
    Unavailable,
    TimedOut,
    Conflict,
    OSError,
    asyncio.TimeoutError,
    nats.errors.Error,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)
"""What another try may mend, however long it takes."""

NOT_UNDERSTOOD: Final = (ValidationError, CallInvalid)
"""What no other try mends: the message is not what its model wants."""


def retry_delay(deliveries: int) -> float:
    """Seconds until a message that was delivered this often is tried again: 0.1, doubling, at most 30."""
    return float(min(0.1 * 2 ** min(deliveries - 1, 20), 30.0))


def reason(error: Exception) -> str:
    """What is wrong, field by field, in one line."""
    match error:
        case RatError():
            return error.message
        case CallInvalid():
            return reason(error.original_error)
        case ValidationError():
            return field_problems(error, whole="message")
        case _:
            return repr(error)
