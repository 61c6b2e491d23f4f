"""Jinja in an author's SQL: sandboxed, strictly undefined, with the names of `pipelines.md`."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final
from uuid import UUID

import jinja2
from jinja2.runtime import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.landing import ZoneForm
from contracts.names import NAME_PATTERN, Qualified
from services.runner.config import Strategy
from services.runner.problems import AuthorError, Problem

_VALUE_BEGIN: Final = "\ufdd0"
_VALUE_END: Final = "\ufdd1"
_MARK_BEGIN: Final = "\ufdd2"
_MARK_END: Final = "\ufdd3"
"""Unicode's noncharacters, which no text has: around values, and around places in the template."""

_VALUE = re.compile(f"'{_VALUE_BEGIN}([^{_VALUE_END}]*){_VALUE_END}'|{_VALUE_BEGIN}([^{_VALUE_END}]*){_VALUE_END}")
_MARK = re.compile(f"{_MARK_BEGIN}([vx])(\\d+){_MARK_END}")
_MISSING: Final = object()


class Sql(str):
    """A piece of SQL: standing alone between single quotes it takes the quotes' place."""

    __slots__ = ()


@dataclass(frozen=True)
class ZoneCall:
    """`landing_zone(...)` as it was rendered: a name that stands for the files until they are known."""

    placeholder: str
    namespace: str
    zone: str
    form: ZoneForm


@dataclass(frozen=True)
class Facts:
    """What templates can say of the run and its pipeline."""

    run_id: UUID
    run_started_at: datetime
    pipeline: Qualified
    strategy: Strategy
    is_incremental: Callable[[], bool]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """The SQL that a template gave, and where in the template each of its characters comes from."""

    path: str
    template: str
    facts: Facts
    sql: str
    zones: tuple[ZoneCall, ...]

    def problem(self, message: str, position: int | None = None) -> Problem:
        """A problem with the SQL at this character, told by line and column of the author's file."""
        place = self._place(position) if position is not None else None
        if place is None:
            return Problem(self.path, message)
        before = self.template[:place]
        return Problem(self.path, message, before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1)

    def _place(self, position: int) -> int | None:
        """The offset in the template; None where rendering again with marks in the text gives something else."""
        try:
            marked = _render(self.path, _marked(self.template), _Names(self.facts))
        except AuthorError:
            return None
        unmarked, marks = _without_marks(marked)
        sql, starts, origins = _without_values(unmarked)
        if sql != self.sql:
            return None
        piece = max(bisect_right(starts, position) - 1, 0)
        return _origin(marks, origins[piece] + position - starts[piece])


def render(path: str, template: str, facts: Facts) -> Rendered:
    """Render a file of SQL; `AuthorError` names the line that does not render."""
    template = re.sub(r"\r\n|\r", "\n", template)
    if re.search("[\ufdd0-\ufdef]", template):
        raise AuthorError(Problem(path, "the file has characters that are none (U+FDD0 to U+FDEF)"))
    names = _Names(facts)
    sql, _, _ = _without_values(_render(path, template, names))
    return Rendered(path, template, facts, sql, tuple(names.zones))


class _Names:
    """The names that a template can use, and the zones that it asked for."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.zones: list[ZoneCall] = []

    def all(self) -> dict[str, Any]:
        facts = self._facts
        return {
            "ref": self._ref,
            "this": _identifier(facts.pipeline),
            "landing_zone": self._landing_zone,
            "is_incremental": facts.is_incremental,
            "is_append_only": lambda: facts.strategy is Strategy.APPEND_ONLY,
            "is_delete_insert": lambda: facts.strategy is Strategy.DELETE_INSERT,
            "is_scd2": lambda: facts.strategy is Strategy.SCD2,
            "is_snapshot": lambda: facts.strategy is Strategy.SNAPSHOT,
            "run_id": str(facts.run_id),
            "run_started_at": facts.run_started_at,
            "namespace": facts.pipeline.namespace,
            "layer": facts.pipeline.layer,
            "name": facts.pipeline.name,
            "var": self._var,
        }

    def _ref(self, name: str) -> Sql:
        return _identifier(table_name(name, self._facts.pipeline.namespace))

    def _landing_zone(self, zone: str, only: str = "all") -> Sql:
        namespace, _, name = zone.rpartition("/")
        namespace = namespace or self._facts.pipeline.namespace
        if only not in ("all", "new"):
            raise ValueError(f"landing_zone() takes only='new', not only={only!r}")
        for part in (namespace, name):
            if not re.fullmatch(NAME_PATTERN, part):
                raise ValueError(f"{zone!r} is not the name of a landing zone")
        call = ZoneCall(f"__rat_landing_zone_{len(self.zones) + 1}__", namespace, name, ZoneForm(only))
        self.zones.append(call)
        return Sql(call.placeholder)

    def _var(self, name: str, default: Any = _MISSING) -> Any:
        if name in self._facts.parameters:
            return self._facts.parameters[name]
        if default is _MISSING:
            raise ValueError(f"the run has no parameter {name!r}, and var({name!r}) has no default")
        return default


def table_name(name: str, namespace: str) -> Qualified:
    """The table of `layer.name` in a namespace, or of `namespace.layer.name`; `ValueError` if it is neither."""
    return Qualified.parse(name if name.count(".") == 2 else f"{namespace}.{name}")


def _identifier(table: Qualified) -> Sql:
    return Sql(".".join(f'"{part}"' for part in table))


def _final(value: Any) -> Any:
    """How a value is written: those that SQL knows by type as SQL, all else as Jinja does."""
    match value:
        case Sql():
            return f"{_VALUE_BEGIN}{value}{_VALUE_END}"
        case datetime():
            kind = "timestamptz" if value.tzinfo else "timestamp"
            return f"{_VALUE_BEGIN}{kind} '{value.isoformat(sep=' ')}'{_VALUE_END}"
        case date():
            return f"{_VALUE_BEGIN}date '{value.isoformat()}'{_VALUE_END}"
        case None:
            return f"{_VALUE_BEGIN}null{_VALUE_END}"
        case bool():
            return f"{_VALUE_BEGIN}{str(value).lower()}{_VALUE_END}"
        case Decimal():
            return format(value, "f")
        case _:
            return value


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_final, keep_trailing_newline=True)


def _render(path: str, template: str, names: _Names) -> str:
    try:
        return _environment().from_string(template).render(names.all())
    except jinja2.TemplateSyntaxError as error:
        raise AuthorError(Problem(path, error.message or "does not parse", error.lineno)) from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, jinja2.TemplateError) as error:
        raise AuthorError(Problem(path, str(error), _line(error))) from error


def _line(error: Exception) -> int | None:
    """The last line of the template that was at work; Jinja makes tracebacks tell the template's own lines."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# Places: the template is rendered once more with its offsets in it, and what comes out tells where it came from.


def _marked(template: str) -> str:
    """The template with a mark before each piece of verbatim text (`v`) and after it (`x`)."""
    return "".join(_marked_tokens(template))


def _marked_tokens(template: str) -> Iterator[str]:
    position = 0
    for _, kind, text in _environment().lex(template):
        position = template.find(text, position)
        end = position + len(text)
        if kind == "data":
            yield f"{_MARK_BEGIN}v{position}{_MARK_END}{text}{_MARK_BEGIN}x{end}{_MARK_END}"
        else:
            yield text
        position = end


@dataclass(frozen=True)
class _Mark:
    at: int
    origin: int
    is_verbatim: bool


def _without_marks(text: str) -> tuple[str, list[_Mark]]:
    pieces: list[str] = []
    marks: list[_Mark] = []
    length = done = 0
    for found in _MARK.finditer(text):
        pieces.append(text[done : found.start()])
        length += len(pieces[-1])
        marks.append(_Mark(length, int(found[2]), found[1] == "v"))
        done = found.end()
    return "".join([*pieces, text[done:]]), marks


def _origin(marks: list[_Mark], position: int) -> int | None:
    index = bisect_right([mark.at for mark in marks], position) - 1
    if index < 0:
        return 0 if marks else None
    mark = marks[index]
    return mark.origin + (position - mark.at if mark.is_verbatim else 0)


def _without_values(text: str) -> tuple[str, list[int], list[int]]:
    """The text without the signs around values, and where each of its pieces starts in it and in what was given."""
    pieces: list[str] = []
    starts, origins = [0], [0]
    length = done = 0
    for found in _VALUE.finditer(text):
        group = 1 if found[1] is not None else 2
        for start, end in ((done, found.start()), found.span(group)):
            pieces.append(text[start:end])
            starts.append(length)
            origins.append(start)
            length += end - start
        done = found.end()
    starts.append(length)
    origins.append(done)
    return "".join([*pieces, text[done:]]), starts, origins
