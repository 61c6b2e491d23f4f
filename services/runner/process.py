"""A process of the warm pool: works on one attempt at a time, and says over a pipe how it goes.

It ends at once when whoever started it is gone: its standard input then ends, which a thread sees whatever runs here.
"""

import os
import sys
import warnings

from pyiceberg.exceptions import CommitFailedException, ValidationException

from contracts.names import Qualified
from services.runner import plugins
from services.runner.asked_tables import AskedTables, AtOnce
from services.runner.domain import FailureKind
from services.runner.engine.compaction import commit_rewritten, rewrite_small_files
from services.runner.engine.session import limit_memory
from services.runner.engine.sniffing import Sniffed
from services.runner.engines import Engines
from services.runner.frames import (
    CommitOn,
    Compacted,
    CompactOrder,
    Failed,
    Looked,
    NotCompacted,
    PreviewOrder,
    Ready,
    Rewritten,
    SetUp,
    Tested,
    TestOrder,
    Validated,
    ValidationOrder,
    Worked,
    WorkOrder,
)
from services.runner.plugins import BrokenPlugin, NoPlugins
from services.runner.preview import PreviewWork, judge_main
from services.runner.problems import AuthorError, WorkFailed
from services.runner.validate import validate
from services.runner.work import Work
from services.runner.workplace import Parent, Workplace, sayable
from shared.errors import Conflict, Declined, Unavailable
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.port import MAIN, BranchClosed
from shared.settings import Settings


def main() -> None:
    """Set up what is warm, then take orders until the runner is gone."""
    # Neither what is said to us nor what we say is where the code of an author would read and print.
    receive = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    send = os.fdopen(os.dup(1), "wb")
    # What anything prints goes to the runner's own log.
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    parent = Parent(receive, send)
    set_up = parent.hear()
    assert isinstance(set_up, SetUp), "the first message is how to set up"
    try:
        plugins.load()
    except NoPlugins as error:
        parent.say(Failed(kind=FailureKind.INTERNAL, error=str(error)))
        return
    workplace = _workplace(parent, set_up)
    parent.say(Ready())
    while True:
        match parent.hear():
            case WorkOrder() as order:
                _work(workplace, order)
            case PreviewOrder() as order:
                _look(workplace, order)
            case TestOrder() as order:
                _test(workplace, order)
            case CompactOrder() as order:
                _compact(workplace, order)
            case ValidationOrder() as order:
                _validate(workplace, order)
            case other:
                raise AssertionError(f"{type(other).__name__} was not asked for")


def _workplace(parent: Parent, set_up: SetUp) -> Workplace:
    settings = _settings(set_up.settings)
    engines = Engines(settings, threads=set_up.threads, spill_directory=set_up.spill_directory)
    parent.interrupt = engines.connection.interrupt
    parent.use_key = engines.use
    asked = AskedTables(parent)

    def catalog_of(branch: str) -> BranchCatalog:
        return BranchCatalog(branch, asked, AtOnce(), engines.files, engines.bucket)

    sniffed = Sniffed(engines.connection)
    return Workplace(parent, engines, catalog_of, set_up.threads, set_up.memory_limit_bytes, sniffed)


def _settings(variables: dict[str, str]) -> Settings:
    """The settings from what would be environment variables; what runs here must not find them in its environment."""
    os.environ.update(variables)
    try:
        return Settings()
    finally:
        for name in variables:
            del os.environ[name]


def _work(workplace: Workplace, order: WorkOrder) -> None:
    work = Work(workplace, order)
    try:
        said: Worked | Failed = work.do()
    except Exception as error:
        said = _failed(error).model_copy(update={"inputs": work.inputs})
    workplace.parent.say(said)


def _look(workplace: Workplace, order: PreviewOrder) -> None:
    said: Looked | Failed = Looked()
    try:
        PreviewWork(workplace, order).do()
    except Exception as error:
        said = _failed(error)
    workplace.parent.say(said)


def _test(workplace: Workplace, order: TestOrder) -> None:
    try:
        said: Tested | Failed = judge_main(workplace, order)
    except Exception as error:
        said = _failed(error)
    workplace.parent.say(said)


def _validate(workplace: Workplace, order: ValidationOrder) -> None:
    try:
        said: Validated | Failed = Validated(validation=validate(workplace.connection, order.pipeline, order.files))
    except Exception as error:
        said = _failed(error)
    workplace.parent.say(said)


def _compact(workplace: Workplace, order: CompactOrder) -> None:
    """Write the small files of a table anew, and commit them on one branch after the other, until it is over."""
    parent, name = workplace.parent, Qualified.parse(order.table)
    limit_memory(workplace.connection, workplace.memory_limit_bytes)
    try:
        rewritten = rewrite_small_files(workplace.connection, workplace.catalog_of(MAIN), name, at_least=order.at_least)
    except Exception as error:
        parent.say(_failed(error))
        return
    if rewritten is None:
        parent.say(NotCompacted())
        return
    parent.say(Rewritten(removed=len(rewritten.removed), added=len(rewritten.added)))
    while True:
        heard = parent.hear()
        assert isinstance(heard, CommitOn), f"{type(heard).__name__} is no branch"
        if heard.branch is None:
            return
        try:
            is_committed = commit_rewritten(workplace.catalog_of(heard.branch), name, rewritten)
        except Exception as error:
            parent.say(_failed(error))
            return
        if not is_committed:
            parent.say(NotCompacted())
            return
        parent.say(Compacted())


def _failed(error: Exception) -> Failed:
    kind, message = _failure(error)
    if kind is FailureKind.INTERNAL:
        sys.excepthook(type(error), error, error.__traceback__)
    return Failed(kind=kind, error=sayable(message))


def _failure(error: Exception) -> tuple[FailureKind, str]:
    """What an error means for the attempt, and how it is told."""
    match error:
        case AuthorError():
            return FailureKind.COMPILE, str(error)
        case WorkFailed():
            return error.kind, error.message
        case BrokenPlugin():
            return FailureKind.INTERNAL, str(error)
        case BranchClosed():
            return FailureKind.CLOSED, error.message
        case Conflict():
            return FailureKind.SCHEMA, error.message
        case CommitFailedException() | ValidationException():
            return FailureKind.TRANSIENT, str(error)
        case Declined():
            return FailureKind.TRANSIENT, error.message
        case Unavailable() | TimeoutError():
            return FailureKind.UNAVAILABLE, str(error)
        case MemoryError():
            return FailureKind.MEMORY, "the process ran out of memory"
        case _:
            return FailureKind.INTERNAL, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
