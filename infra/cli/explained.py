"""How failures of the platform itself are explained to whoever started it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.cli.failure import Failure


@contextmanager
def failures_explained() -> Iterator[None]:
    """Say in one line what stops the platform from starting or running."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from shared.errors import RatError

    try:
        yield
    except ImportError as error:
        raise Failure(f"{error}: the embedded servers and the demo need rat-platform[embedded,demo]") from error
    except RatError as error:
        raise Failure(error.message, code=error.code, details=error.details) from error
    except ValidationError as error:
        raise Failure(f"settings: {'; '.join(_field(problem) for problem in error.errors())}") from error
    except SettingsError as error:
        raise Failure(f"settings: {_unread(error)}") from error
    except OSError as error:
        raise Failure(str(error) or repr(error)) from error


def _unread(error: Exception) -> str:
    """What pydantic says of a value that is no JSON, with the variable's name where it tells the field's."""
    field = re.search(r'for field "(\w+)"', str(error))
    name = f"RAT_{field[1].upper()}" if field else str(error)
    return f"""{name}: a list or a mapping is given as JSON, as '["a", "b"]' or '{{"a": "b"}}'"""


def _field(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:  # it is about several
        return message
    return f"RAT_{'.'.join(str(part) for part in problem['loc']).upper()}: {message}"
