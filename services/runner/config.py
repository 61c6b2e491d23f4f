"""What an author sets for a pipeline: `config.yaml`, and annotations in the header of its query that win over it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

import yaml

from contracts.reports import Severity
from services.runner.plugins import BrokenPlugin, MergeStrategy, strategies
from services.runner.problems import AuthorError, Problem
from shared.similar import expected

CONFIG_FILE: Final = "config.yaml"

SMALLEST_MEMORY_LIMIT: Final = 64_000_000
_LARGEST_MEMORY_LIMIT: Final = 10**15
"""DuckDB knows no unit beyond terabytes."""

_YES: Final = ("true", "yes", "on")
_NO: Final = ("false", "no", "off")
"""How YAML writes them."""

_Reader: TypeAlias = Callable[[str, Any], Any]
"""From a key and a value as written to the value; `ValueError` says what was expected."""

_IS_CURRENT: Final = "is_current"
"""The third column of `scd2`, beside the two that the author may name."""

_NOTHING: Final = "tag:yaml.org,2002:null"
"""The tag of a value that YAML takes for none."""

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class Strategy(StrEnum):
    """The merge strategies that are built in (`pipelines.md`, Merge strategies)."""

    FULL_REFRESH = "full_refresh"
    APPEND_ONLY = "append_only"
    INCREMENTAL = "incremental"
    DELETE_INSERT = "delete_insert"
    SCD2 = "scd2"
    SNAPSHOT = "snapshot"


class Materialized(StrEnum):
    """What a pipeline makes of its query."""

    TABLE = "table"
    VIEW = "view"


class SchemaChange(StrEnum):
    """What becomes of columns of the query that the table does not have, or has with another type."""

    EVOLVE = "evolve"
    FAIL = "fail"
    REPLACE = "replace"


@dataclass(frozen=True)
class PartitionField:
    """One field of `partition_by`: an Iceberg transform of a column."""

    column: str
    transform: str = "identity"
    """As Iceberg writes it: `identity`, `day`, `bucket[16]`, …"""


@dataclass(frozen=True)
class Config:
    """The settings of a pipeline, with those that its author left out."""

    description: str | None = None
    materialized: Materialized = Materialized.TABLE
    merge_strategy: str = Strategy.FULL_REFRESH
    """One of `Strategy`, or the name of a plugin."""
    unique_key: tuple[str, ...] = ()
    partition_by: tuple[PartitionField, ...] = ()
    partition_column: str | None = None
    watermark_column: str | None = None
    scd_valid_from: str = "valid_from"
    scd_valid_to: str = "valid_to"
    close_missing: bool = False
    on_schema_change: SchemaChange = SchemaChange.EVOLVE
    archive_landing_zones: bool = False
    max_retries: int = 2
    retry_delay_seconds: float = 5
    timeout_seconds: float = 3600
    memory_limit: int | None = None
    """Bytes; the share of the machine that the runner gives each worker if not set."""
    tags: tuple[str, ...] = ()
    places: Mapping[str, Problem] = field(default_factory=dict, compare=False, repr=False)
    """Key → where the author set it."""

    def problem(self, key: str, message: str) -> Problem:
        """A problem with what a key says, where it says so."""
        return replace(self.places.get(key, Problem(CONFIG_FILE, "")), message=message)


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
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_config(files: Mapping[str, str], pipeline_file: str) -> tuple[Config, list[Problem]]:
    """The settings of a pipeline from its files, and everything that is wrong with them."""
    text = files.get(CONFIG_FILE, "")
    try:
        from_file = _read(CONFIG_FILE, list(_yaml_settings(text)), _CONFIG)
    except AuthorError as error:
        from_file = _Read(problems=list(error.problems))
    pipeline = files.get(pipeline_file, "")
    annotations = _read(pipeline_file, list(header_annotations(pipeline_file, pipeline)), _CONFIG)
    places = {key: Problem(CONFIG_FILE, "", line) for key, line in from_file.lines.items()}
    places |= {key: Problem(pipeline_file, "", line) for key, line in annotations.lines.items()}
    config = replace(Config(), **(from_file.values | annotations.values), places=places)
    problems = from_file.problems + annotations.problems + _unfinished(pipeline_file, pipeline, _CONFIG)
    return config, problems or [config.problem(key, message) for key, message in _unfit(config)]


def _unfit(config: Config) -> Iterator[tuple[str, str]]:
    """Settings that do not go together: the key that is at fault, and what is wrong with it."""
    strategy = config.merge_strategy
    for needed in plugin_of(strategy).needs:
        if not getattr(config, needed):
            yield "merge_strategy", f"merge_strategy {strategy} needs {needed}, which is not set"
    if config.on_schema_change is SchemaChange.REPLACE and strategy != Strategy.FULL_REFRESH:
        yield (
            "on_schema_change",
            f"on_schema_change replace is for merge_strategy full_refresh only, not for {strategy}",
        )
    if config.materialized is Materialized.VIEW and strategy != Strategy.FULL_REFRESH:
        yield "merge_strategy", f"a view has no merge_strategy: it writes no data; remove {strategy}"
    if config.materialized is Materialized.VIEW and config.partition_by:
        yield "partition_by", "a view has no partition_by: it writes no data"
    if strategy == Strategy.SCD2 and config.scd_valid_from.lower() == config.scd_valid_to.lower():
        yield "scd_valid_to", f"scd_valid_from and scd_valid_to are both {config.scd_valid_to!r}; they must differ"
    for key in ("scd_valid_from", "scd_valid_to"):
        if strategy == Strategy.SCD2 and str(getattr(config, key)).lower() == _IS_CURRENT:
            yield key, f"{key} cannot be {_IS_CURRENT!r}: scd2 keeps a column of that name beside it"


def plugin_of(strategy: str) -> MergeStrategy:
    """What a strategy of settings that were read needs and does."""
    plugin = strategies().get(strategy)
    assert plugin is not None, "settings with the name of no strategy were refused"
    return plugin


def read_test_header(path: str, text: str) -> tuple[QualityHeader, list[Problem]]:
    """What the header of a quality test says, and what is wrong with it."""
    read = _read(path, list(header_annotations(path, text)), _TEST)
    return replace(QualityHeader(), **read.values), read.problems + _unfinished(path, text, _TEST)


def misplaced_annotations(path: str, text: str) -> list[Problem]:
    """Lines that would be annotations, and count for nothing where they stand."""
    in_header = {setting.line for setting in header_annotations(path, text)}
    where = f"annotations stand above the first line of code, each behind {_sign(path)}"
    return [
        Problem(path, f"@{found[1]} counts for nothing here: {where}", number)
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := _LIKE_ANNOTATION.match(line))
        and number not in in_header
        and found[1].lower() in _CONFIG.keys() | _TEST.keys()
    ]


_LIKE_ANNOTATION: Final = re.compile(r"\W*@([A-Za-z_]\w*)\s*:")
"""A line that is one in comments of whatever kind, or in a text at the top of Python."""


def unknown_columns(config: Config, given: Sequence[str]) -> list[Problem]:
    """The columns that settings name and that the query does not give, whose columns these are."""
    known = {column.lower() for column in given}
    if config.merge_strategy == Strategy.SCD2:
        known |= {config.scd_valid_from.lower(), config.scd_valid_to.lower(), _IS_CURRENT}
    named = [("unique_key", column) for column in config.unique_key]
    named += [("partition_by", one.column) for one in config.partition_by]
    named += [("partition_column", config.partition_column)] if config.partition_column else []
    named += [("watermark_column", config.watermark_column)] if config.watermark_column else []
    return [
        config.problem(key, f"{key} names {column!r}, which the query does not give{expected(column, given)}")
        for key, column in named
        if column.lower() not in known
    ]


def header_annotations(path: str, text: str) -> Iterator[_Setting]:
    """The lines `-- @key: value`, in Python `# @key: value`, among the comments that a file begins with."""
    annotation = _annotation(_sign(path))
    for number, line in _header(path, text):
        if found := annotation.match(line):
            yield _Setting(found[1], found[2], number)


def _unfinished(path: str, text: str, known: Mapping[str, _Reader]) -> list[Problem]:
    """Lines of a header that name a setting without a colon, and so set nothing."""
    sign = _sign(path)
    named = re.compile(rf"\s*{sign}\s*@(\w+)(?!\s*:)\b")
    return [
        Problem(path, f"@{found[1]} sets nothing without a colon: write `{sign} @{found[1]}: value`", number)
        for number, line in _header(path, text)
        if (found := named.match(line)) and found[1].lower() in known
    ]


def _header(path: str, text: str) -> Iterator[tuple[int, str]]:
    """The comments that a file begins with, and their lines."""
    sign = _sign(path)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if not line.lstrip().startswith(sign):
            return
        yield number, line


def _sign(path: str) -> str:
    """What comments begin with in a file."""
    return "--" if path.endswith(".sql") else "#"


def _annotation(sign: str) -> re.Pattern[str]:
    return re.compile(rf"\s*{sign}\s*@([A-Za-z_]\w*)\s*:\s*(.*?)\s*$")


def _yaml_settings(text: str) -> Iterator[_Setting]:
    if not text:
        return
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
    for key, value in root.value:
        yield _Setting(str(key.value), _as_written(value), key.start_mark.line + 1)


def _as_written(node: yaml.Node, inside: tuple[yaml.Node, ...] = ()) -> Any:
    """A value of YAML with its texts as they stand: a column may be called `no`, and a description be a date."""
    if node in inside:
        message = "no valid YAML: a value holds itself"
        raise AuthorError(Problem(CONFIG_FILE, message, node.start_mark.line + 1))
    match node:
        case yaml.SequenceNode():
            return [_as_written(item, (*inside, node)) for item in node.value]
        case yaml.MappingNode():
            return {str(key.value): _as_written(value, (*inside, node)) for key, value in node.value}
        case _:
            return None if node.tag == _NOTHING else node.value


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
            read.lines[key] = setting.line
    return read


def _value(setting: _Setting, known: Mapping[str, _Reader]) -> Any:
    key = setting.key.lower()
    if key not in known:
        raise ValueError(f"unknown key {setting.key!r}{expected(key, known)}")
    if setting.value is None and key == "merge_strategy":
        # Whatever was meant, it was hardly the strategy that throws away what the table holds.
        raise ValueError(f"{key} is empty: give it a value, or take it out")
    return None if setting.value is None else known[key](key, setting.value)


# The values


def _choice(choices: type[StrEnum]) -> _Reader:
    def read(key: str, value: Any) -> StrEnum:
        try:
            return choices(str(value).lower())
        except ValueError as error:
            raise ValueError(f"unknown {key} {value!r}{expected(str(value), choices)}") from error

    return read


def _strategy(key: str, value: Any) -> str:
    name = str(value).lower()
    try:
        known = strategies().get(name) is not None
    except BrokenPlugin as error:
        raise ValueError(f"{key} {value!r} cannot be used: {error}") from error
    if not known:
        raise ValueError(f"unknown {key} {value!r}{expected(name, strategies().names)}")
    return name


def _text(key: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"{key} is a text, not {value!r}")  # noqa: TRY004  # one kind of error for authors
    return str(value)


def _flag(key: str, value: Any) -> bool:
    written = str(value).lower()
    if written in (*_YES, *_NO):
        return written in _YES
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
    if size > _LARGEST_MEMORY_LIMIT:
        raise ValueError(f"{key} must be at most {_LARGEST_MEMORY_LIMIT // 10**12}TB, not {value!r}")
    return size


def _words(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        raise ValueError(f"{key} is a list of words, not {value!r}")  # noqa: TRY004  # as above
    words = value if isinstance(value, list) else str(value).strip("[]").split(",")
    return tuple(word for word in (str(word).strip().strip("'\"") for word in words) if word)


def _column(key: str, value: Any) -> str:
    name = _text(key, value).strip()
    name = name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name
    if not name:
        raise ValueError(f"{key} is the name of a column, not {value!r}")
    return name


def _columns(key: str, value: Any) -> tuple[str, ...]:
    columns = _words(key, value)
    twice = {column for column in columns if [one.lower() for one in columns].count(column.lower()) > 1}
    if not columns or twice:
        raise ValueError(f"{key} is a list of different columns, as `id, day`, not {value!r}")
    return columns


def _partitions(key: str, value: Any) -> tuple[PartitionField, ...]:
    """The fields of `day(ts), bucket(16, id), country`; a list in YAML holds one in each item."""
    texts = value if isinstance(value, list) else re.split(r",(?![^(]*\))", _text(key, value))
    fields = tuple(_partition(key, str(text).strip()) for text in texts)
    if len(set(fields)) < len(fields):
        raise ValueError(f"{key} has a field twice: {value!r}")
    return fields


def _partition(key: str, text: str) -> PartitionField:
    if "(" not in text:
        return PartitionField(_column(key, text))
    found = _TRANSFORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{key} is a list of columns and transforms, as `day(ts), bucket(16, id)`, not {text!r}")
    name = found[1].lower()
    if name not in _TRANSFORMS:
        raise ValueError(f"unknown transform {found[1]!r} in {key}{expected(name, _TRANSFORMS)}")
    wants_number = _TRANSFORMS[name]
    if wants_number != (found[2] is not None) or found[2] == "0":
        example = f"{name}(16, column)" if wants_number else f"{name}(column)"
        raise ValueError(f"{key}: {name} is written `{example}`, not {text!r}")
    return PartitionField(_column(key, found[3]), f"{name}[{int(found[2])}]" if wants_number else name)


_TRANSFORM: Final = re.compile(r"(\w+)\s*\(\s*(?:(\d{1,9})\s*,\s*)?([^,()]+?)\s*\)")
_TRANSFORMS: Final[Mapping[str, bool]] = {
    "identity": False,
    "year": False,
    "month": False,
    "day": False,
    "hour": False,
    "bucket": True,
    "truncate": True,
    "void": False,
}
"""Iceberg's transforms, and whether each takes a number before its column."""

_CONFIG: Final[Mapping[str, _Reader]] = {
    "description": _text,
    "materialized": _choice(Materialized),
    "merge_strategy": _strategy,
    "unique_key": _columns,
    "partition_by": _partitions,
    "partition_column": _column,
    "watermark_column": _column,
    "scd_valid_from": _column,
    "scd_valid_to": _column,
    "close_missing": _flag,
    "on_schema_change": _choice(SchemaChange),
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
