"""Hooks, called on the way of an attempt (`services.runner.plugins`), and the one that is built in."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from contracts.reports import QualityResult
from services.runner.domain import FailureKind
from services.runner.plugins import HookRun, Refused, WrittenRows, hooks
from services.runner.problems import WorkFailed

HookName: TypeAlias = Literal["before_write", "after_write", "after_tests"]


class RunLog:
    """Tells in the run's log what was written, and how it was judged."""

    def after_write(self, run: HookRun, written: WrittenRows) -> None:
        """Tell how many rows the run has written."""
        run.log(f"{run.config.merge_strategy}: {written.rows} rows in {written.files} files")

    def after_tests(self, run: HookRun, results: Sequence[QualityResult]) -> None:
        """Tell what each test found."""
        for result in results:
            found = "" if result.value is None else f", {result.value} rows"
            message = f": {result.message}" if result.message else ""
            run.log(f"test {result.name}: {result.status}{found}{message}")


def call(name: HookName, run: HookRun, about: Any) -> None:
    """Call the hooks of a name, one after the other.

    Raises `WorkFailed` where one refuses the run or fails, and `BrokenPlugin` where one could not be loaded.
    """
    plugins = hooks()
    for plugin_name in plugins.names:
        method = getattr(plugins.get(plugin_name), name, None)
        if method is None:
            continue
        try:
            method(run, about)
        except Refused as refusal:
            raise WorkFailed(FailureKind.QUALITY, f"refused by hook {plugin_name!r} ({name}): {refusal}") from refusal
        except Exception as error:
            message = f"hook {plugin_name!r} failed ({name}): {type(error).__name__}: {error}"
            raise WorkFailed(FailureKind.INTERNAL, message) from error
