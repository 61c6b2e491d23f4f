"""What the runner can be taught: merge strategies, names in Jinja, types of pipelines and hooks, by entry points.

What is built in is registered in `pyproject.toml` the same way as what any other installed package adds. Plugins are
code of whoever runs the platform, not of its authors: they run in the processes of the runner, with its rights.
`docs/plugins.md` shows how one is written.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from contracts.names import Qualified
from contracts.reports import QualityResult
from shared.similar import expected

if TYPE_CHECKING:
    # What plugins get knows them.
    from duckdb import DuckDBPyConnection

    from services.runner.config import Config
    from services.runner.engine.batch import Writing, Written
    from services.runner.engine.statement import Statement
    from services.runner.python.source import Source
    from services.runner.template import Facts, Scope

P = TypeVar("P")

STRATEGIES: Final = "rat.strategies"
JINJA: Final = "rat.jinja"
PIPELINE_TYPES: Final = "rat.pipeline_types"
HOOKS: Final = "rat.hooks"


class BrokenPlugin(Exception):
    """A plugin cannot be used; the message names it, the package that it is from, and what is wrong with it."""


class NoPlugins(Exception):
    """Nothing of a group is installed, not even what is built in."""

    def __init__(self, group: str) -> None:
        super().__init__(
            f"no entry points of {group} are installed, not even those that are built in: this installation is of"
            " another version than its code; install the package rat-platform anew"
        )


class Refused(Exception):
    """What a hook raises to end the run, which then fails as by a failed test; the message is the run's error."""


# What a plugin is


@runtime_checkable
class MergeStrategy(Protocol):
    """How new rows meet the table: what `merge_strategy` names. Group `rat.strategies`, under that name."""

    needs: Sequence[str]
    """The keys of the config that it cannot do without, as `("unique_key",)`; a pipeline without them is refused."""
    is_incremental: bool
    """Whether rows that the table has already stay in it; what `is_incremental()` says once there is a table."""

    def write(self, writing: "Writing") -> "Written":
        """Bring the rows of the query into the table, in one commit.

        `writing.begin()` gives a `Batch`, with the new rows as files or as a table, the live files of the table, and
        `finish`, which commits. `SchemaError` where the columns do not fit.
        """


@runtime_checkable
class PipelineType(Protocol):
    """A language that pipelines are written in. Group `rat.pipeline_types`, under its name."""

    file: str
    """The file that holds a pipeline's code, as `pipeline.sql`. Annotations stand in its first comments, which begin
    with `--` in files that end in `.sql`, and with `#` in all others."""

    def compile(self, connection: "DuckDBPyConnection", text: str, facts: "Facts") -> "Statement | Source":
        """Make of the text a query, or Python to run, without running any of it; for a run, and for publishing.

        A language that is translated to SQL gives `parse(connection, render(self.file, sql, facts))`. `AuthorError`
        says what is wrong, by line.
        """


class JinjaName(Protocol):
    """Makes what a name stands for in the templates of a run. Group `rat.jinja`, under that name."""

    def __call__(self, scope: "Scope") -> Any:
        """The value, or the function, that templates of this run get under the name.

        It is made anew for each file that is rendered. A `ValueError` that the function raises is told to the author
        with the line of the template.
        """


@dataclass(frozen=True)
class HookRun:
    """The run that a hook is called for."""

    run_id: UUID
    attempt: int
    pipeline: Qualified
    pipeline_id: UUID
    started_at: datetime
    config: "Config"
    """The pipeline's settings."""
    parameters: Mapping[str, Any]
    log: Callable[[str], None]
    """Writes a line into the run's log."""


@dataclass(frozen=True)
class WrittenRows:
    """What a run has written on its branch."""

    rows: int
    files: int
    bytes: int
    location: str | None
    """Of the table's metadata on the branch; None if there is no table."""


class Hooks(Protocol):
    """What is called on the way of each attempt. Group `rat.hooks`, under any name; each method may be left out.

    Hooks are called in the order of their names, in the process of the run. `Refused` ends the run, which then fails as
    by a failed test; any other exception is a fault of the plugin, and fails the run as one. A run may have several
    attempts: what a hook does outside should bear being done twice.
    """

    def before_write(self, run: HookRun, sql: str) -> None:
        """The query is compiled, with its tables and files in place, and nothing is written yet."""

    def after_write(self, run: HookRun, written: WrittenRows) -> None:
        """The rows are on the run's branch, where nobody else sees them."""

    def after_tests(self, run: HookRun, results: Sequence[QualityResult]) -> None:
        """The tests have judged the branch, whatever they found; a run without tests has no results."""


_HOOKS: Final = ("before_write", "after_write", "after_tests")


# How they are found


@dataclass(frozen=True)
class Plugins(Generic[P]):
    """The plugins of a group: those that can be used, and for each other one why not."""

    group: str
    usable: Mapping[str, P]
    broken: Mapping[str, BrokenPlugin]

    def get(self, name: str) -> P | None:
        """The plugin of a name, None if there is none; raises `BrokenPlugin` if it cannot be used."""
        if name in self.broken:
            raise self.broken[name]
        return self.usable.get(name)

    @property
    def names(self) -> list[str]:
        """All names, also those of broken ones."""
        return sorted([*self.usable, *self.broken])


@cache
def strategies() -> Plugins[MergeStrategy]:
    """The merge strategies by name."""
    return found(STRATEGIES, checked_strategy)


@cache
def pipeline_types() -> Plugins[PipelineType]:
    """The languages of pipelines, by name."""
    return found(PIPELINE_TYPES, checked_type)


@cache
def jinja_names() -> Plugins[JinjaName]:
    """What makes the names of templates, by name."""
    return found(JINJA, checked_name)


@cache
def hooks() -> Plugins[Hooks]:
    """The hooks by name; a broken one fails every run, as nobody knows what it would have refused."""
    return found(HOOKS, checked_hooks)


def load() -> None:
    """Find and import all plugins now, so that no run has to wait for it; raises `NoPlugins`."""
    strategies()
    pipeline_types()
    jinja_names()
    hooks()


def found(group: str, checked: Callable[[Any], P]) -> Plugins[P]:
    """Load the plugins of a group; `checked` raises `TypeError` for an object that is none.

    A class is made an object by calling it without arguments. One that cannot be loaded, or whose name is taken, is
    kept as broken: it is told to those who use it, and holds up nobody else. `NoPlugins` where there are none at all.
    """
    usable: dict[str, P] = {}
    broken: dict[str, BrokenPlugin] = {}
    by_name: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        by_name.setdefault(point.name, []).append(point)
    if not by_name:
        raise NoPlugins(group)
    for name, points in by_name.items():
        sources = sorted({_source(point) for point in points})
        if len(sources) > 1:
            broken[name] = BrokenPlugin(f"{group} has {name!r} more than once: from {' and from '.join(sources)}")
            continue
        try:
            usable[name] = checked(_object(points[0]))
        except Exception as error:
            # Whatever a plugin does when it is imported: its name goes with it.
            told = f"{type(error).__name__}: {error}" if not isinstance(error, TypeError) else str(error)
            broken[name] = BrokenPlugin(f"plugin {name!r} of {group}, from {sources[0]}, cannot be used: {told}")
    return Plugins(group, usable, broken)


def _object(point: EntryPoint) -> Any:
    plugin = point.load()
    return plugin() if inspect.isclass(plugin) else plugin


def _source(point: EntryPoint) -> str:
    package = f"package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"


def checked_strategy(plugin: Any) -> MergeStrategy:
    """The object as a merge strategy; `TypeError` if it is none."""
    missing = [name for name in ("needs", "is_incremental", "write") if not hasattr(plugin, name)]
    if missing:
        raise TypeError(f"a merge strategy has needs, is_incremental and write(); it lacks {', '.join(missing)}")
    assert isinstance(plugin, MergeStrategy), "it has everything that the protocol names"
    return plugin


def checked_type(plugin: Any) -> PipelineType:
    """The object as a language of pipelines; `TypeError` if it is none."""
    missing = [name for name in ("file", "compile") if not hasattr(plugin, name)]
    if missing:
        raise TypeError(f"a pipeline type has file and compile(); it lacks {', '.join(missing)}")
    assert isinstance(plugin, PipelineType), "it has everything that the protocol names"
    return plugin


def checked_name(plugin: Any) -> JinjaName:
    """The object as what makes a name of templates; `TypeError` if it is none."""
    if not callable(plugin):
        raise TypeError(f"it must be a function of the scope that gives the value, not {plugin!r}")
    made: JinjaName = plugin
    return made


def checked_hooks(plugin: Any) -> Hooks:
    """The object as hooks; `TypeError` if it has none, or one that nobody calls."""
    public = [name for name in dir(plugin) if name.startswith(("before_", "after_"))]
    for name in public:
        if name not in _HOOKS:
            raise TypeError(f"unknown hook {name!r}{expected(name, _HOOKS)}")
    if not public:
        raise TypeError(f"it has none of {', '.join(_HOOKS)}")
    made: Hooks = plugin
    return made
