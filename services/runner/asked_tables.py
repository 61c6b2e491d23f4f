"""The lakehouse as the process of a run has it: it asks the runner, and has no password of its own."""

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, NoReturn, TypeVar

from contracts.names import Qualified
from services.runner.frames import AskLocations, AskMove, Locations, Moved, NewMetadata, NewView
from services.runner.workplace import Parent
from shared.errors import Conflict, Forbidden
from shared.lakehouse.port import MAIN, BranchClosed, MetadataFile, Relation, RelationKind, ViewFile

T = TypeVar("T")


class AtOnce:
    """Calls what is asynchronous by its form only, as `AskedTables` is, which waits for the runner where it stands.

    The event loop of another thread would take longer than the question.
    """

    def call(self, ask: Callable[..., Coroutine[Any, Any, T]], /, *arguments: Any) -> T:
        """Call, which comes to its end without waiting for an event."""
        coroutine = ask(*arguments)
        try:
            coroutine.send(None)
        except StopIteration as end:
            answer: T = end.value
            return answer
        raise AssertionError(f"{coroutine} waits for something, and there is no event loop")


class AskedTables:
    """Where tables are on the branch of the run; the runner moves the run's own table, and nothing else."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    async def relation(self, name: Qualified, at: str = MAIN) -> Relation | None:
        """Say what a name stands for on the run's branch."""
        answer = self._parent.ask(AskLocations(tables=[str(name)]), Locations)
        if (view := answer.views.get(str(name))) is not None:
            return Relation(RelationKind.VIEW, view.location)
        location = answer.locations[str(name)]
        return Relation(RelationKind.TABLE, location) if location is not None else None

    async def commit(
        self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | ViewFile | None
    ) -> None:
        """Move the run's table, or view, on its branch from one metadata file to the next."""
        asked = AskMove(expected=expected, new=_told(new))
        moved = self._parent.ask(asked, Moved)
        match moved.refused:
            case "closed":
                raise BranchClosed(moved.message)
            case "conflict":
                raise Conflict(moved.message)

    async def relations(self, at: str = MAIN) -> dict[Qualified, Relation]:
        """Refuse: a run knows the tables that it asks for by name."""
        _refuse("listing tables and views")

    async def namespaces(self) -> set[str]:
        """Refuse: the runner has seen to it that there is the namespace of the run's table."""
        _refuse("listing namespaces")

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Refuse, likewise."""
        _refuse("making a namespace")


def _told(new: MetadataFile | ViewFile | None) -> NewMetadata | NewView | None:
    match new:
        case None:
            return None
        case MetadataFile():
            return NewMetadata(**asdict(new))
        case ViewFile():
            return NewView(**asdict(new))


def _refuse(what: str) -> NoReturn:
    raise Forbidden(f"{what} is not for the process of a run")
