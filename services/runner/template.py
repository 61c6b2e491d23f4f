"""Jinja in an author's SQL: sandboxed, strictly undefined, with the names of `pipelines.md`."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, Final
from uuid import UUID

import jinja2
from jinja2.runtime import Context, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.landing import ZoneForm
from contracts.names import NAME_PATTERN, Layer, Qualified
from services.runner import plugins
from services.runner.problems import AuthorError, Problem
from shared.similar import did_you_mean

_VALUE_BEGIN: Final = "\ufdd0"
_VALUE_END: Final = "\ufdd1"
_MARK_BEGIN: Final = "\ufdd2"
_MARK_END: Final = "\ufdd3"
"""Unicode's noncharacters, which no text has: around values, and around places in the template."""

_VALUE = re.compile(f"'{_VALUE_BEGIN}([^{_VALUE_END}]*){_VALUE_END}'|{_VALUE_BEGIN}([^{_VALUE_END}]*){_VALUE_END}")
_MARK = re.compile(f"{_MARK_BEGIN}([vx])(\\d+){_MARK_END}")


class Sql(str):
    """A piece of SQL: standing alone between single quotes it takes the quotes' place."""

    __slots__ = ()


class Flag:
    """Yes or no, with brackets behind it or without."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask

    def __call__(self) -> bool:
        """Ask."""
        return self._ask()

    def __bool__(self) -> bool:
        return self._ask()

    def __repr__(self) -> str:
        return repr(self._ask())


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
    strategy: str
    is_incremental: Callable[[], bool]
    watermark_column: str | None = None
    watermark: Callable[[], Sql | None] = lambda: None
    """The greatest value of the watermark column in the table, as a literal of its type; None while there is none."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_rehearsal: bool = False
    """Whether nothing will be run: what only a run can know is stood in for."""


@dataclass
class Scope:
    """What a file is rendered with, and what it asked for: what makes a name of templates is given one."""

    facts: Facts
    zones: list[ZoneCall] = field(default_factory=list)
    missing_parameters: list[str] = field(default_factory=list)
    """Those that have no default where a rehearsal asked for them."""
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Those that were used."""
        return frozenset(self._made)

    def table(self, name: str) -> Sql:
        """A platform's table by `layer.name`, or `namespace.layer.name`, as SQL names it."""
        return identifier_of(table_name(name, self.facts.pipeline.namespace))

    def zone(self, name: str, form: ZoneForm) -> Sql:
        """What stands for the files of a landing zone, `name` or `namespace/name`, until they are known."""
        namespace, zone = zone_name(name, self.facts.pipeline.namespace)
        call = ZoneCall(f"__rat_landing_zone_{len(self.zones) + 1}__", namespace, zone, form)
        self.zones.append(call)
        return Sql(call.placeholder)

    def value(self, name: str) -> Any:
        """What a name stands for; raises `BrokenPlugin` where what makes it cannot be used."""
        if name not in self._made:
            make = plugins.jinja_names().get(name)
            assert make is not None, "only names that there are get here"
            self._made[name] = make(self)
        return self._made[name]


@dataclass(frozen=True)
class Rendered:
    """The SQL that a template gave, and where in the template each of its characters comes from."""

    path: str
    template: str
    facts: Facts
    sql: str
    zones: tuple[ZoneCall, ...]
    missing_parameters: tuple[str, ...] = ()
    """Those of the run that a rehearsal wanted, and that have no default."""
    names: frozenset[str] = frozenset()
    """Those that the template used."""

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
            marked = _render(self.path, _marked(self.template), Scope(self.facts))
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
    if re.search("[\0\ufdd0-\ufdef]", template):
        raise AuthorError(Problem(path, "the file has characters that are none (NUL, or U+FDD0 to U+FDEF)"))
    scope = Scope(facts)
    sql, _, _ = _without_values(_render(path, template, scope))
    missing = tuple(dict.fromkeys(scope.missing_parameters))
    return Rendered(path, template, facts, sql, tuple(scope.zones), missing, scope.names)


# Names


_NAMES: Final = "names have lower-case letters, digits, '_' and '-', and begin with a letter"


def table_name(name: str, namespace: str) -> Qualified:
    """The table of `layer.name` in a namespace, or of `namespace.layer.name`; `ValueError` if it is neither."""
    parts = name.split(".")
    if len(parts) not in (2, 3):
        raise ValueError(
            f"{name!r} is no table: write 'layer.name', as '{Layer.BRONZE}.{parts[0]}', or all three parts"
        )
    layer = parts[-2]
    if layer not in list(Layer):
        raise ValueError(f"{name!r} is no table: {layer!r} is no layer{did_you_mean(layer, list(Layer))}")
    for part in (*parts[:-2], parts[-1]):
        if not re.fullmatch(NAME_PATTERN, part):
            raise ValueError(f"{name!r} is no table: {part!r} is no name ({_NAMES})")
    return Qualified(parts[0] if len(parts) == 3 else namespace, layer, parts[-1])


def zone_name(name: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of the zone `name` in a namespace, or of `namespace/name`; `ValueError` if it is neither."""
    of, _, zone = name.rpartition("/")
    for part in (of or namespace, zone):
        if not re.fullmatch(NAME_PATTERN, part):
            raise ValueError(f"{name!r} is not the name of a landing zone ({_NAMES})")
    return of or namespace, zone


def identifier_of(table: Qualified) -> Sql:
    """A platform's table as SQL names it."""
    return Sql(".".join(f'"{part}"' for part in table))


def _final(value: Any) -> Any:
    """How a value is written: those that SQL knows by type as SQL, all else as Jinja does."""
    match value:
        case Sql():
            return f"{_VALUE_BEGIN}{value}{_VALUE_END}"
        case datetime():
            # With the type behind it, so that an author's own may stand before: `timestamp '{{ run_started_at }}'`.
            kind = "timestamptz" if value.tzinfo else "timestamp"
            return f"{_VALUE_BEGIN}'{value.isoformat(sep=' ')}'::{kind}{_VALUE_END}"
        case date():
            return f"{_VALUE_BEGIN}'{value.isoformat()}'::date{_VALUE_END}"
        case Flag():
            return _final(bool(value))
        case None:
            return f"{_VALUE_BEGIN}null{_VALUE_END}"
        case bool():
            return f"{_VALUE_BEGIN}{str(value).lower()}{_VALUE_END}"
        case Decimal():
            return format(value, "f")
        case _:
            return value


class NoWatermark(Undefined):
    """What `watermark_value` is while there is none: false, equal to none, and an error where it is rendered."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, NoWatermark)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = Undefined.__hash__

    def __str__(self) -> str:
        raise jinja2.UndefinedError(self._undefined_message)


class Unknown:
    """What stands in a rehearsal for a value that only a run has: null, and whatever comes of it is unknown too."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def _unknown(self, *_: Any, **__: Any) -> "Unknown":
        return self

    def _no(self, *_: Any) -> bool:
        return False

    def __str__(self) -> str:
        return "null"

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __getattr__(self, name: str) -> "Unknown":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    __hash__ = object.__hash__
    __call__ = __getitem__ = __neg__ = __pos__ = _unknown
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _unknown
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _unknown
    __bool__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _no


class _Lazy:
    """A name of a template that is worked out when it is used."""

    def __init__(self, scope: Scope, name: str) -> None:
        self._scope, self._name = scope, name

    def value(self) -> Any:
        try:
            return self._scope.value(self._name)
        except plugins.BrokenPlugin as error:
            # Names are looked up when a template begins; it is told where the name is used.
            return StrictUndefined(hint=str(error))


class _Context(Context):
    """Looks names up as Jinja does, and works out those that are lazy."""

    def resolve_or_missing(self, key: str) -> Any:
        value = super().resolve_or_missing(key)
        return value.value() if isinstance(value, _Lazy) else value


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as authors meet it; no template reaches the attributes of what it is given, nor changes it."""

    context_class = _Context


@cache
def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, finalize=_final, keep_trailing_newline=True)
    environment.tests["none"] = lambda value: value is None or isinstance(value, NoWatermark)
    return environment


@lru_cache(maxsize=200)
def _parsed(template: str) -> jinja2.Template:
    """A template that may be rendered again and again: a process runs the same pipelines every day."""
    return _environment().from_string(template)


def _render(path: str, template: str, scope: Scope) -> str:
    names = {name: _Lazy(scope, name) for name in plugins.jinja_names().names}
    try:
        return _parsed(template).render(names)
    except jinja2.TemplateSyntaxError as error:
        raise AuthorError(Problem(path, _reworded(error.message or "does not parse"), error.lineno)) from error
    except RecursionError as error:
        raise AuthorError(Problem(path, "a macro calls itself without end", _line(error))) from error
    except (*_MISTAKES, jinja2.TemplateError) as error:
        line = _line(error)
        raise AuthorError(_about(path, template, error, line)) from error


def _reworded(message: str) -> str:
    """What Jinja says of a template that does not parse, in words that tell what to do."""
    tag = _NO_TAG.match(message)
    if tag and tag[1] not in _TAGS:
        return f"there is no tag {{% {tag[1]} %}}{did_you_mean(tag[1], _TAGS)}"
    if found := _NOT_CLOSED.search(message):
        tags = " or ".join(f"{{% {name} %}}" for name in re.findall(r"'(\w+)'", found[1]))
        if tag:
            return f"{{% {tag[1]} %}} does not belong here: {{% {found[2]} %}} is open, expected {tags}"
        return f"{{% {found[2]} %}} is never closed: expected {tags}"
    if tag:
        return f"{{% {tag[1]} %}} belongs to no tag that is open here"
    if found := _NO_FILTER.match(message):
        known = _environment().filters if found[1] == "filter" else _environment().tests
        return f"there is no {found[1]} {found[2]!r}{did_you_mean(found[2], known)}"
    if message == "tag name expected":
        return "expected the name of a tag behind {%, as {% if … %}"
    for what, sign in _SIGNS.items():
        message = re.sub(rf"token '{what}'|'{what}'", f"'{sign}'", message)
    return message.replace("end of template", "end of the file").removesuffix(".")


_NOT_CLOSED: Final = re.compile(r"looking for the following tags: (.*?)\. The innermost block .* closed is '(\w+)'")
_NO_TAG: Final = re.compile(r"Encountered unknown tag '(\w+)'")
_NO_FILTER: Final = re.compile(r"No (filter|test) named '(\w+)'")
_SIGNS: Final = {
    "begin of print statement": "{{",
    "end of print statement": "}}",
    "begin of statement block": "{%",
    "end of statement block": "%}",
}
"""What Jinja calls the signs of its own."""
_TAGS: Final = ("if", "elif", "else", "endif", "for", "endfor", "set", "endset", "macro", "endmacro", "with", "endwith")

_MISTAKES: Final = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_NO_ATTRIBUTE: Final = re.compile(r"'[\w.]*\.Sql object' has no")
_NO_FILES: Final = "no loader for this environment specified"
_UNDEFINED: Final = re.compile(r"'(\w+)' is undefined")


def _about(path: str, template: str, error: Exception, line: int | None) -> Problem:
    """What is wrong with a line, with the column of a name that there is not."""
    message = str(error) or type(error).__name__
    message = _NO_ATTRIBUTE.sub("a piece of SQL, as ref(…) and this give it, has no", message)
    if message == _NO_FILES:
        message = "there are no other files to include, import or extend here: write macros into this one"
    unknown = _UNDEFINED.fullmatch(message) if isinstance(error, jinja2.UndefinedError) else None
    if unknown is None or line is None:
        return Problem(path, message, line)
    written = re.search(rf"\b{unknown[1]}\b", template.split("\n")[line - 1])
    message += did_you_mean(unknown[1], plugins.jinja_names().names)
    return Problem(path, message, line, written.start() + 1 if written else None)


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
