"""How figures are summed up, shown, and kept in `docs/benchmarks.md`."""

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of the values does not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(part * len(ranked)) - 1)]


def milliseconds(values: Sequence[float]) -> str:
    """Median and 99th percentile of seconds, in ms."""
    return f"{median(values) * 1000:.0f} / {quantile(values, 0.99) * 1000:.0f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(command: str, figures: str) -> None:
    """Print Markdown; with `--write`, also put it in the place that the document has for this command."""
    print(f"\n{figures}")
    if "--write" not in sys.argv[1:]:
        return
    begin, end = f"<!-- figures: written by `{command} --write` -->", "<!-- end of figures -->"
    before, found, rest = DOCUMENT.read_text().partition(begin)
    if not found:
        sys.exit(f"{DOCUMENT} has no place for these figures: expected a line {begin!r} in it")
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}\n\n{figures}\n\n{end}{after}")
