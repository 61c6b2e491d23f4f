"""Tables for people."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from infra.cli.colours import COLOURS


class Count(int):
    """A number of things, which is shown with spaces between its thousands."""


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table; numbers are set right, states in their colour."""
    made = Table(box=None, pad_edge=False, show_header=any(columns), header_style="bold")
    for number, column in enumerate(columns):
        is_number = any(isinstance(row[number], int | float) for row in rows)
        made.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def _cell(value: object) -> Text:
    match value:
        case None:
            return Text("–", style="bright_black")
        case bool():
            return Text("yes" if value else "no")
        case Count():
            return Text(f"{value:,}".replace(",", " "))
        case datetime():
            return Text(f"{value.astimezone():%Y-%m-%d %H:%M:%S}")
        case _:
            text = str(value)
            return Text(text, style=COLOURS.get(text, ""))


def size(count: int) -> str:
    """A number of bytes as people say it."""
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def moment(text: str | None) -> datetime | None:
    """A time of the API."""
    return None if text is None else datetime.fromisoformat(text)


def duration(milliseconds: float | None) -> str | None:
    """A duration as people say it."""
    if milliseconds is None:
        return None
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
