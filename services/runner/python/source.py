"""An author's Python, compiled: what it reads as far as it can be told from the text, and what is wrong with it."""

import ast
import re
import symtable
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Final

from contracts.landing import ZoneForm
from contracts.names import Qualified
from services.runner.problems import AuthorError, Problem
from services.runner.template import table_name, zone_name

PYTHON_FILE: Final = "pipeline.py"
MODULE: Final = "pipeline"
"""What the code is called where Python asks for the name of its module."""
QUOTED: Final = "__rat_quoted__"
"""The function around what stands alone between single quotes in an f-string."""


@dataclass(frozen=True)
class NamedZone:
    """A landing zone that the code names in full."""

    namespace: str
    zone: str
    form: ZoneForm


@dataclass(frozen=True)
class Source:
    """The Python of a pipeline, ready to run."""

    text: str
    code: CodeType
    tables: tuple[Qualified, ...]
    """The tables that `ref(…)` names in so many words."""
    zones: tuple[NamedZone, ...]
    """The landing zones that `landing_zone(…)` names in so many words."""
    places: Mapping[Qualified | NamedZone, Problem]
    """Where each of them is named first, as a problem without a message."""
    names_all_zones: bool
    """Whether no call of `landing_zone(…)` works out what it asks for."""

    def names(self, word: str) -> bool:
        """Whether the code uses a global name."""
        return word in _names_of(self.code)


def parse_source(text: str, namespace: str) -> Source:
    """Compile the text of `pipeline.py`, without running any of it; `AuthorError` says what is wrong, and where."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text, PYTHON_FILE)
            code = compile(_unquoted(ast.parse(text, PYTHON_FILE)), PYTHON_FILE, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise AuthorError(Problem(PYTHON_FILE, error.msg, error.lineno, error.offset)) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise AuthorError(Problem(PYTHON_FILE, f"does not compile: {error}")) from error
    problems = list(_problems(tree, text))
    references = _References(namespace, _entrance(tree))
    references.visit(tree)
    if problems or references.problems:
        raise AuthorError(*problems, *references.problems)
    return Source(
        text,
        code,
        tuple(named for named in references.places if isinstance(named, Qualified)),
        tuple(named for named in references.places if isinstance(named, NamedZone)),
        references.places,
        references.names_all_zones,
    )


def _names_of(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names_of(one) for one in inner))


# What a pipeline must be


def _problems(tree: ast.Module, text: str) -> Iterator[Problem]:
    table = symtable.symtable(text, PYTHON_FILE, "exec")
    gives = [name for name in ("pipeline", "result") if name in table.get_identifiers() and _is_bound(table, name)]
    imports_everything = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body)
    if not gives and not imports_everything:
        yield Problem(PYTHON_FILE, "there is neither a function `pipeline(ctx)` nor anything assigned to `result`")
    function = _entrance(tree)
    if isinstance(function, ast.AsyncFunctionDef):
        message = "`pipeline` is an async function; write `def pipeline(ctx):`, and `asyncio.run(…)` where it is needed"
        yield Problem(PYTHON_FILE, message, function.lineno, function.col_offset + 1)
    elif function is not None and not _takes_one(function.args):
        message = "`pipeline` takes one argument, the run's context: `def pipeline(ctx):`"
        yield Problem(PYTHON_FILE, message, function.lineno, function.col_offset + 1)


def _is_bound(table: symtable.SymbolTable, name: str) -> bool:
    symbol = table.lookup(name)
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def _entrance(tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The function that gives the result, where it is written out."""
    functions = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "pipeline"
    ]
    return functions[-1] if functions else None


def _takes_one(arguments: ast.arguments) -> bool:
    places = [*arguments.posonlyargs, *arguments.args]
    needed = len(places) - len(arguments.defaults)
    has_place = bool(places) or arguments.vararg is not None
    return has_place and needed <= 1 and all(default is not None for default in arguments.kw_defaults)


# What it reads


class _References(ast.NodeVisitor):
    """The tables and zones that the code names in so many words."""

    def __init__(self, namespace: str, entrance: ast.FunctionDef | ast.AsyncFunctionDef | None) -> None:
        self._namespace = namespace
        self._contexts = {"ctx"}
        if entrance is not None and entrance.args.args:
            self._contexts.add(entrance.args.args[0].arg)
        self.places: dict[Qualified | NamedZone, Problem] = {}
        self.names_all_zones = True
        self.problems: list[Problem] = []

    def visit_Call(self, node: ast.Call) -> None:
        """Take what a call names."""
        self.generic_visit(node)
        try:
            match self._function(node.func):
                case "ref":
                    if (name := _text(node, 0, "name")) is not None:
                        self._note(table_name(name, self._namespace), node)
                case "landing_zone":
                    self._take_zone(node)
        except ValueError as error:
            self.problems.append(Problem(PYTHON_FILE, str(error), node.lineno, node.col_offset + 1))

    def _take_zone(self, node: ast.Call) -> None:
        zone, only = _text(node, 0, "zone"), _text(node, 1, "only")
        takes_only = len(node.args) > 1 or any(keyword.arg == "only" for keyword in node.keywords)
        if zone is None or (takes_only and only is None):
            self.names_all_zones = False
            return
        self._note(named_zone(zone, only or "all", self._namespace), node)

    def _note(self, named: Qualified | NamedZone, node: ast.Call) -> None:
        self.places.setdefault(named, Problem(PYTHON_FILE, "", node.lineno, node.col_offset + 1))

    def _function(self, called: ast.expr) -> str | None:
        match called:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in self._contexts:
                return name
            case _:
                return None


def named_zone(zone: str, only: str, namespace: str) -> NamedZone:
    """The zone that `landing_zone(zone, only=…)` asks for; `ValueError` if it is none."""
    if only not in ("all", "new"):
        raise ValueError(f"landing_zone() takes only='new', not only={only!r}")
    owner, name = zone_name(zone, namespace)
    return NamedZone(owner, name, ZoneForm(only))


def _text(node: ast.Call, position: int, name: str) -> str | None:
    """An argument of a call, if it is written out as a text."""
    given = [node.args[position]] if len(node.args) > position else []
    given += [keyword.value for keyword in node.keywords if keyword.arg == name]
    match given:
        case [ast.Constant(value=str(text))]:
            return text
        case _:
            return None


# Quotes


class _Unquoted(ast.NodeTransformer):
    """In an f-string, what stands alone between single quotes may take their place, as in Jinja (`pipelines.md`)."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        """Take quotes away, and have `QUOTED` put them back around what is no value of ours."""
        self.generic_visit(node)
        for before, value, after in zip(node.values, node.values[1:], node.values[2:], strict=False):
            match before, value, after:
                case (
                    ast.Constant(value=str(left)),
                    ast.FormattedValue(conversion=-1, format_spec=None),
                    ast.Constant(value=str(right)),
                ) if _QUOTE_BEFORE.search(left) and _QUOTE_AFTER.match(right):
                    before.value, after.value = left[:-1], right[1:]
                    value.value = ast.Call(ast.Name(QUOTED, ast.Load()), [value.value], [])
        return node


_QUOTE_BEFORE: Final = re.compile(r"(?<!')'\Z")
_QUOTE_AFTER: Final = re.compile(r"'(?!')")


def _unquoted(tree: ast.Module) -> ast.Module:
    _Unquoted().visit(tree)
    return ast.fix_missing_locations(tree)
