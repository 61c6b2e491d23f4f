"""The names that are built into templates (`pipelines.md`, Jinja), each made for one file of one run.

They are registered in `pyproject.toml` as entry points of group `rat.jinja`, as those of other packages are.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from jinja2 import Undefined

from contracts.landing import ZoneForm
from services.runner.config import Strategy
from services.runner.template import Flag, NoWatermark, Scope, Sql, Unknown, identifier_of

_MISSING: Final = object()


def ref(scope: Scope) -> Callable[[str], Sql]:
    """`ref('silver.orders')`: a table as of the run's branch."""

    def ref(name: str) -> Sql:
        return scope.table(_text("ref", name, "layer.name"))

    return _called("ref", ref)


def this(scope: Scope) -> Sql:
    """`this`: the pipeline's own table on the branch."""
    return identifier_of(scope.facts.pipeline)


def landing_zone(scope: Scope) -> Callable[..., Sql]:
    """`landing_zone('orders')`, `landing_zone('orders', only='new')`: the files of a zone."""

    def landing_zone(name: str, only: str = "all") -> Sql:
        if only not in list(ZoneForm):
            raise ValueError(f"landing_zone() takes only='new', not only={only!r}")
        return scope.zone(_text("landing_zone", name, "orders"), ZoneForm(only))

    return _called("landing_zone", landing_zone)


def is_incremental(scope: Scope) -> Flag:
    """`is_incremental()`: whether the table is there, and keeps rows that it has."""
    return Flag(lambda: scope.facts.is_incremental())


def watermark_value(scope: Scope) -> Sql | NoWatermark:
    """`watermark_value`: the greatest value of the watermark column, false while there is none."""
    facts = scope.facts
    value = facts.watermark() if facts.watermark_column is not None else None
    if value is not None:
        return value
    if facts.watermark_column is None:
        return NoWatermark("there is no watermark_value: the pipeline sets no watermark_column")
    return NoWatermark(
        f"there is no watermark_value: {facts.pipeline} has no value in {facts.watermark_column!r} yet;"
        " write what uses it inside {% if watermark_value %} … {% endif %}"
    )


def is_append_only(scope: Scope) -> Flag:
    """`is_append_only()`: whether that is the strategy."""
    return Flag(lambda: scope.facts.strategy == Strategy.APPEND_ONLY)


def is_delete_insert(scope: Scope) -> Flag:
    """`is_delete_insert()`: whether that is the strategy."""
    return Flag(lambda: scope.facts.strategy == Strategy.DELETE_INSERT)


def is_scd2(scope: Scope) -> Flag:
    """`is_scd2()`: whether that is the strategy."""
    return Flag(lambda: scope.facts.strategy == Strategy.SCD2)


def is_snapshot(scope: Scope) -> Flag:
    """`is_snapshot()`: whether that is the strategy."""
    return Flag(lambda: scope.facts.strategy == Strategy.SNAPSHOT)


def run_id(scope: Scope) -> str:
    """`run_id`: the id of the run."""
    return str(scope.facts.run_id)


def run_started_at(scope: Scope) -> datetime:
    """`run_started_at`: when the attempt began."""
    return scope.facts.run_started_at


def namespace(scope: Scope) -> str:
    """`namespace`: the first part of the pipeline's name."""
    return scope.facts.pipeline.namespace


def layer(scope: Scope) -> str:
    """`layer`: the second part of the pipeline's name."""
    return scope.facts.pipeline.layer


def name(scope: Scope) -> str:
    """`name`: the last part of the pipeline's name."""
    return scope.facts.pipeline.name


def var(scope: Scope) -> Callable[..., Any]:
    """`var('x')`, `var('x', default)`: a parameter of the run."""

    def var(name: str, default: Any = _MISSING) -> Any:
        parameters = scope.facts.parameters
        if _text("var", name, "x") in parameters:
            return parameters[name]
        if default is not _MISSING:
            return default
        if scope.facts.is_rehearsal:
            scope.missing_parameters.append(name)
            return Unknown(name)
        raise ValueError(f"the run has no parameter {name!r}, and var({name!r}) has no default")

    return _called("var", var)


def _called(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the name by which Python's messages call it."""
    function.__qualname__ = name
    return function


def _text(function: str, value: object, example: str) -> str:
    """The name that a function was given; `ValueError` if it is none."""
    match value:
        case Unknown():
            message = f"needs a name that is known before a run: give var({value.name!r}) a default"
        case Undefined():
            message = f"takes a name between quotes: {function}('{value._undefined_name or example}')"
        case str():
            return value
        case _:
            message = f"takes a name between quotes, as {function}('{example}'), not {value!r}"
    raise ValueError(f"{function}() {message}")
