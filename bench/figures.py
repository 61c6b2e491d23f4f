"""How figures are summed up and shown."""

import math
from collections.abc import Iterable, Sequence
from statistics import median


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
