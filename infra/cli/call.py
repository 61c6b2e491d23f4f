"""What all commands share: where the platform is, how answers are shown, how failures end."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec

import typer

from infra.cli.failure import ExitCode, Failure

if TYPE_CHECKING:
    from rich.console import Console

    from infra.cli.api import Api

P = ParamSpec("P")

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the platform. [env: RAT_URL]", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data directory of a platform on this machine. [env: RAT_DATA]"),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

_PIPED_WIDTH: Final = 250


class Call:
    """One call of the command."""

    def __init__(self, *, url: str | None = None, data: Path | None = None, json: bool = False) -> None:
        self.url = url
        """The address that was given with `--url`."""
        self._data = data
        self.json = json

    def refined(self, *, url: str | None, data: Path | None, json: bool) -> "Call":
        """This call with the options that were given after the command's name."""
        return Call(url=url or self.url, data=data or self._data, json=json or self.json)

    @cached_property
    def data(self) -> Path:
        """The data directory that is meant."""
        if self._data is not None:
            return self._data
        if "RAT_DATA" in os.environ:
            return Path(os.environ["RAT_DATA"])
        from platformdirs import user_data_path

        return user_data_path("rat", appauthor=False)

    @property
    def token(self) -> str | None:
        """The API token for a platform that is named by its address."""
        return os.environ.get("RAT_TOKEN")

    @cached_property
    def api(self) -> "Api":
        """The platform's API; `Failure` if no platform can be found."""
        from infra.cli.api import Api, read_connection

        url = self.url or (os.environ.get("RAT_URL") if self._data is None else None)
        if url is not None:
            return Api(url, self.token)
        connection = read_connection(self.data)
        return Api(connection.url, connection.token)

    @cached_property
    def console(self) -> "Console":
        """Where people read answers."""
        from rich.console import Console

        # What is piped somewhere is not folded at 80 columns.
        return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)

    def say(self, text: str) -> None:
        """Print a line, with Rich's markup, for people only."""
        if not self.json:
            self.console.print(text, soft_wrap=True)

    def print_json(self, value: Any) -> None:
        """Print a JSON document."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def print_json_line(self, value: Any) -> None:
        """Print one of many JSON documents, at once."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def print_table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Print a table; numbers are set right, states in their colour. Instead of no rows, print `empty`."""
        from infra.cli.tables import table

        cells = list(rows)
        if not cells and empty:
            self.say(f"[bright_black]{empty}[/]")
            return
        self.console.print(table(columns, cells))

    def print_list(
        self,
        path: str,
        plural: str,
        columns: Sequence[str],
        row: Callable[[dict[str, Any]], Sequence[object]],
        *,
        empty: str,
        **filters: Any,
    ) -> None:
        """Print all entries of a list of the API, as JSON or as a table with the row of each."""
        found = list(self.api.entries(path, plural, **filters))
        if self.json:
            self.print_json({plural: found, "total": len(found)})
        else:
            self.print_table(columns, map(row, found), empty=empty)


def command(function: Callable[Concatenate[Call, P], None]) -> Callable[..., None]:
    """Make a Typer command of a function whose first parameter is the call: it also takes the global options."""
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[1:]

    @functools.wraps(function)
    def wrapper(context: typer.Context, url: Url, data: Data, json: Json, **arguments: Any) -> None:
        call: Call = context.obj.refined(url=url, data=data, json=json)
        with failures_shown(call):
            function(call, **arguments)  # type: ignore[call-arg]  # Typer passes every parameter by its name

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("url", keyword, default=None, annotation=Url),
        inspect.Parameter("data", keyword, default=None, annotation=Data),
        inspect.Parameter("json", keyword, default=False, annotation=Json),
    ]
    context = inspect.Parameter("context", keyword, annotation=typer.Context)
    parameters = [parameter.replace(kind=keyword) for parameter in own]
    wrapper.__signature__ = signature.replace(parameters=[context, *parameters, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [context, *parameters, *added]}
    return wrapper


@contextmanager
def failures_shown(call: Call) -> Iterator[None]:
    """End the command with one line on standard error when it fails."""
    try:
        yield
    except Failure as failure:
        _show(failure, call)
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _show(failure: Failure, call: Call) -> None:
    if call.json:
        body = {"error": {"code": failure.code, "message": failure.message, **failure.details}}
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    label = typer.style("rat:", fg="red", bold=True) if sys.stderr.isatty() else "rat:"
    sys.stderr.write(f"{label} {failure.message}\n")


def usage(message: str) -> Failure:
    """What ends a command whose arguments make no sense together."""
    return Failure(message, ExitCode.USAGE)
