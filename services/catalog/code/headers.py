"""Quality tests as files: a header of annotations, then a query that returns violations."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from contracts.reports import Severity

_ANNOTATION: Final = re.compile(r"--\s*@(\w+)\s*:?\s*(.*?)\s*")


@dataclass(frozen=True)
class TestHeader:
    """What the header of a quality test says."""

    __test__ = False

    severity: Severity = Severity.ERROR
    description: str = ""
    tags: Sequence[str] = ()
    remediation: str = ""


def read_header(sql: str) -> TestHeader:
    """What a test's header says.

    A severity that does not exist counts as `error`, the one that blocks: publishing refuses it.
    """
    said = dict(_annotations(sql))
    return TestHeader(
        severity=Severity.WARN if said.get("severity", "").lower() == Severity.WARN else Severity.ERROR,
        description=said.get("description", ""),
        tags=tuple(tag for part in said.get("tags", "").split(",") if (tag := part.strip())),
        remediation=said.get("remediation", ""),
    )


def with_header(
    sql: str,
    *,
    severity: Severity | None,
    description: str | None,
    tags: Sequence[str] | None,
    remediation: str | None,
) -> str:
    """The file of a test: what is given goes into its header in place of what the header said, the rest stays."""
    given = {
        "severity": severity,
        "description": description,
        "tags": None if tags is None else ", ".join(tags),
        "remediation": remediation,
    }
    replaced = {key for key, value in given.items() if value is not None}
    lines = sql.split("\n")
    head = sum(1 for _ in _header(sql))
    kept = [line for line in lines[:head] if _key(line) not in replaced]
    # A line break would end the annotation and begin who knows what.
    added = [f"-- @{key}: {' '.join(value.split())}" for key, value in given.items() if value]
    return "\n".join([*added, *kept, *lines[head:]]).strip() + "\n"


def _annotations(sql: str) -> Iterator[tuple[str, str]]:
    for line in _header(sql):
        if found := _ANNOTATION.fullmatch(line.strip()):
            yield found[1].lower(), found[2]


def _key(line: str) -> str | None:
    found = _ANNOTATION.fullmatch(line.strip())
    return found[1].lower() if found else None


def _header(sql: str) -> Iterator[str]:
    """The comment at the top, up to the first line that is none."""
    for line in sql.split("\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith("--"):
            return
        yield line
