"""Counts of what the gateway did, in Prometheus' text format."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds of the durations of requests, in seconds."""


class Metrics:
    """What this process has counted since it started."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._durations: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Take note of a request that was answered."""
        self._requests[method, route, status] += 1
        self._seconds[route] += seconds
        place = next((index for index, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self._durations[route][place] += 1

    def lines(self) -> Iterable[str]:
        """All of it, as text."""
        yield from family("rat_http_requests_total", "counter", "Requests that were answered.")
        for (method, route, status), count in sorted(self._requests.items()):
            yield sample("rat_http_requests_total", {"method": method, "route": route, "status": str(status)}, count)
        name = "rat_http_request_duration_seconds"
        yield from family(name, "histogram", "Time from a request to the end of its answer.")
        for route, counts in sorted(self._durations.items()):
            total = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                yield sample(f"{name}_bucket", {"route": route, "le": bound}, total)
            yield sample(f"{name}_sum", {"route": route}, self._seconds[route])
            yield sample(f"{name}_count", {"route": route}, total)


def family(name: str, kind: str, about: str) -> Iterable[str]:
    """What comes before the samples of a metric."""
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line."""
    escaped = (
        (key, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for key, text in labels.items()
    )
    inside = ",".join(f'{key}="{text}"' for key, text in escaped)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
