"""Plugins are found by entry points, the built-in ones among them, and a broken one is told by name."""

from pathlib import Path
from typing import Any

import pytest

from services.runner import plugins
from services.runner.config import Strategy
from services.runner.plugins import BrokenPlugin, NoPlugins, Plugins
from tests.plugging import install

MODULE = """
class Fine:
    def before_write(self, run, sql): ...

class Typo:
    def before_wirte(self, run, sql): ...

class Nothing: ...

class Needy:
    def __init__(self, something): ...

not_a_name = 3

def scope_to_value(scope): return 7

class KeepFirst:
    needs = ("unique_key",)
    is_incremental = True
    def write(self, writing): ...

class Half:
    needs = ()
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs entry points of a group, and finds them with what is built in."""

    def find(group: str, **points: str) -> Plugins[Any]:
        lines = "".join(f'{name} = "{value}"\n' for name, value in points.items())
        text = f'[project]\nname = "odd-plugins"\nversion = "2.1"\n[project.entry-points."{group}"]\n{lines}'
        install(tmp_path, {"pyproject.toml": text, "odd_plugins_of_a_test.py": MODULE})
        monkeypatch.syspath_prepend(str(tmp_path))
        checked = {
            plugins.HOOKS: plugins.checked_hooks,
            plugins.JINJA: plugins.checked_name,
            plugins.STRATEGIES: plugins.checked_strategy,
            plugins.PIPELINE_TYPES: plugins.checked_type,
        }
        return plugins.found(group, checked[group])

    return find


def told(of: Plugins[Any], name: str) -> str:
    with pytest.raises(BrokenPlugin) as broken:
        of.get(name)
    return str(broken.value)


def test_what_is_built_in_is_registered_as_any_other_plugin_is() -> None:
    assert {"ref", "this", "landing_zone", "watermark_value", "var"} <= set(plugins.jinja_names().usable)
    assert [kind.file for kind in plugins.pipeline_types().usable.values()] == ["pipeline.py", "pipeline.sql"]
    assert set(plugins.strategies().usable) == set(Strategy)
    assert "log" in plugins.hooks().usable
    assert plugins.jinja_names().broken == plugins.hooks().broken == plugins.strategies().broken == {}


def test_a_plugin_of_another_package_stands_beside_the_built_in_ones(found: Any) -> None:
    names = found(plugins.JINJA, seven="odd_plugins_of_a_test:scope_to_value")

    assert names.get("seven")(None) == 7
    assert names.get("ref") is not None
    assert names.get("eight") is None


def test_a_class_is_made_an_object(found: Any) -> None:
    strategies = found(plugins.STRATEGIES, keep_first="odd_plugins_of_a_test:KeepFirst")

    assert strategies.get("keep_first").needs == ("unique_key",)


@pytest.mark.parametrize(
    ("group", "value", "why"),
    [
        (plugins.HOOKS, "no_such_module_at_all:x", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        (
            plugins.HOOKS,
            "odd_plugins_of_a_test:Nope",
            "AttributeError: module 'odd_plugins_of_a_test' has no attribute 'Nope'",
        ),
        (plugins.HOOKS, "odd_plugins_of_a_test:Typo", "unknown hook 'before_wirte', did you mean 'before_write'?"),
        (plugins.HOOKS, "odd_plugins_of_a_test:Nothing", "it has none of before_write, after_write, after_tests"),
        (
            plugins.JINJA,
            "odd_plugins_of_a_test:not_a_name",
            "it must be a function of the scope that gives the value, not 3",
        ),
        (
            plugins.PIPELINE_TYPES,
            "odd_plugins_of_a_test:Half",
            "a pipeline type has file and compile(); it lacks file, compile",
        ),
        (
            plugins.STRATEGIES,
            "odd_plugins_of_a_test:Half",
            "a merge strategy has needs, is_incremental and write(); it lacks is_incremental, write",
        ),
    ],
)
def test_a_broken_plugin_is_told_by_name_package_and_reason(found: Any, group: str, value: str, why: str) -> None:
    of = found(group, odd=value)

    assert told(of, "odd") == f"plugin 'odd' of {group}, from package odd-plugins 2.1 ({value}), cannot be used: {why}"
    assert of.usable.keys() == plugins.found(group, lambda plugin: plugin).usable.keys() - {"odd"}


def test_an_installation_without_any_plugins_is_to_be_made_anew() -> None:
    with pytest.raises(NoPlugins, match=r"no entry points of rat\.nothing are installed.* rat-platform anew"):
        plugins.found("rat.nothing", lambda plugin: plugin)


def test_no_plugin_takes_a_name_that_is_taken(found: Any) -> None:
    names = found(plugins.JINJA, ref="odd_plugins_of_a_test:scope_to_value")

    assert told(names, "ref") == (
        "rat.jinja has 'ref' more than once: from package odd-plugins 2.1 (odd_plugins_of_a_test:scope_to_value)"
        " and from package rat-platform 0.1.0 (services.runner.names:ref)"
    )
