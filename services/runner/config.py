"""What an author sets for a pipeline: `config.yaml`, and annotations in the header of its query that win over it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final, TypeAlias

import yaml

from contracts.reports import Severity
from services.runner.problems import AuthorError, Problem

CONFIG_FILE: Final = "config.yaml"

SMALLEST_MEMORY_LIMIT: Final = 64_000_000

_Reader: TypeAlias = Callable[[str, Any], Any]
"""From a key and a value as written to the value; `ValueError` says what was expected."""

_ANNOTATION = re.compile(r"\s*--\s*@([A-Za-z_]\w*)\s*:\s*(.*?)\s*$")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class Strategy(StrEnum):
    """How new rows meet the table (`pipelines.md`, Merge strategies)."""

    FULL_REFRESH = "full_refresh"
    APPEND_ONLY = "append_only"

    @property
    def is_incremental(self) -> bool:
        """Whether rows that the table has already stay in it."""
        return self is not Strategy.FULL_REFRESH


class Materialized(StrEnum):
    """What a pipeline makes of its query."""

    TABLE = "table"


@dataclass(frozen=True)
class Config:
    """The settings of a pipeline, with those that its author left out."""

    description: str | None = None
    materialized: Materialized = Materialized.TABLE
    merge_strategy: Strategy = Strategy.FULL_REFRESH
    archive_landing_zones: bool = False
    max_retries: int = 2
    retry_delay_seconds: float = 5
    timeout_seconds: float = 3600
    memory_limit: int | None = None
    """Bytes; the share of the machine that the runner gives each worker if not set."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class QualityHeader:
    """What the header of a quality test says of it."""

    severity: Severity = Severity.ERROR
    description: str = ""
    tags: tuple[str, ...] = ()
    remediation: str = ""


@dataclass(frozen=True)
class _Setting:
    """A key with its value as the author wrote it, and where."""

    key: str
    value: Any
    line: int


@dataclass
class _Read:
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_config(files: Mapping[str, str], pipeline_file: str) -> tuple[Config, list[Problem]]:
    """The settings of a pipeline from its files, and everything that is wrong with them."""
    text = files.get(CONFIG_FILE, "")
    try:
        from_file = _read(CONFIG_FILE, list(_yaml_settings(text)), _CONFIG)
    except AuthorError as error:
        from_file = _Read(problems=list(error.problems))
    annotations = _read(pipeline_file, list(header_annotations(files.get(pipeline_file, ""))), _CONFIG)
    config = replace(Config(), **(from_file.values | annotations.values))
    return config, from_file.problems + annotations.problems


def read_test_header(path: str, text: str) -> tuple[QualityHeader, list[Problem]]:
    """What the header of a quality test says, and what is wrong with it."""
    read = _read(path, list(header_annotations(text)), _TEST)
    return replace(QualityHeader(), **read.values), read.problems


def header_annotations(text: str) -> Iterator[_Setting]:
    """The lines `-- @key: value` among the comments that a file begins with."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if not line.lstrip().startswith("--"):
            return
        if found := _ANNOTATION.match(line):
            yield _Setting(found[1], found[2], number)


def _yaml_settings(text: str) -> Iterator[_Setting]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise AuthorError(Problem(CONFIG_FILE, f"no valid YAML: {error.problem or error.context}", line)) from error
    except yaml.YAMLError as error:
        raise AuthorError(Problem(CONFIG_FILE, f"no valid YAML: {error}")) from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        message = "expected keys and values, as `merge_strategy: append_only`"
        raise AuthorError(Problem(CONFIG_FILE, message, root.start_mark.line + 1))
    constructor = yaml.SafeLoader("")
    for key, value in root.value:
        plain = constructor.construct_object(value, deep=True)
        yield _Setting(str(key.value), plain, key.start_mark.line + 1)


def _read(path: str, settings: list[_Setting], known: Mapping[str, _Reader]) -> _Read:
    read = _Read()
    for setting in settings:
        key = setting.key.lower()
        try:
            value = _value(setting, known)
        except ValueError as error:
            read.problems.append(Problem(path, str(error), setting.line))
            continue
        if key in read.values:
            read.problems.append(Problem(path, f"{key} is set twice", setting.line))
        if value is not None:
            read.values[key] = value
    return read


def _value(setting: _Setting, known: Mapping[str, _Reader]) -> Any:
    key = setting.key.lower()
    if key not in known:
        raise ValueError(f"unknown key {setting.key!r}{_suggestion(key, known)}")
    return None if setting.value is None else known[key](key, setting.value)


def _suggestion(word: str, known: Mapping[str, Any] | type[StrEnum]) -> str:
    names = [str(name) for name in known]
    close = get_close_matches(word.lower(), names, n=1)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(names)}"


# The values


def _choice(choices: type[StrEnum]) -> _Reader:
    def read(key: str, value: Any) -> StrEnum:
        try:
            return choices(str(value).lower())
        except ValueError as error:
            raise ValueError(f"unknown {key} {value!r}{_suggestion(str(value), choices)}") from error

    return read


def _text(key: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"{key} is a text, not {value!r}")  # noqa: TRY004  # one kind of error for authors
    return str(value)


def _flag(key: str, value: Any) -> bool:
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"{key} is true or false, not {value!r}")


def _count(key: str, value: Any) -> int:
    if not re.fullmatch(r"\d{1,9}", str(value)):
        raise ValueError(f"{key} is a whole number, 0 or more, not {value!r}")
    return int(value)


def _seconds(key: str, value: Any) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d+)?", str(value)):
        raise ValueError(f"{key} is a number of seconds, not {value!r}")
    return float(value)


def _positive_seconds(key: str, value: Any) -> float:
    seconds = _seconds(key, value)
    if seconds == 0:
        raise ValueError(f"{key} must be more than 0 seconds")
    return seconds


def _bytes(key: str, value: Any) -> int:
    found = _BYTES.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{key} is a size as 512MB or 2GiB, not {value!r}")
    base = 1024 if found[3] else 1000
    size = int(float(found[1]) * base ** " kmgt".index(found[2].lower() or " "))
    if size < SMALLEST_MEMORY_LIMIT:
        raise ValueError(f"{key} must be at least {SMALLEST_MEMORY_LIMIT // 1_000_000}MB, not {value!r}")
    return size


def _words(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        raise ValueError(f"{key} is a list of words, not {value!r}")  # noqa: TRY004  # as above
    words = value if isinstance(value, list) else str(value).strip("[]").split(",")
    return tuple(word for word in (str(word).strip().strip("'\"") for word in words) if word)


_CONFIG: Final[Mapping[str, _Reader]] = {
    "description": _text,
    "materialized": _choice(Materialized),
    "merge_strategy": _choice(Strategy),
    "archive_landing_zones": _flag,
    "max_retries": _count,
    "retry_delay_seconds": _seconds,
    "timeout_seconds": _positive_seconds,
    "memory_limit": _bytes,
    "tags": _words,
}

_TEST: Final[Mapping[str, _Reader]] = {
    "severity": _choice(Severity),
    "description": _text,
    "tags": _words,
    "remediation": _text,
}
