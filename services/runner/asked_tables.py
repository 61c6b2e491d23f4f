"""The lakehouse as the process of a run has it: it asks the runner, and has no password of its own."""

from dataclasses import asdict
from typing import NoReturn

from contracts.names import Qualified
from services.runner.frames import AskLocations, AskMove, Locations, Moved, NewMetadata
from services.runner.workplace import Parent
from shared.errors import Conflict, Forbidden
from shared.lakehouse.port import MAIN, BranchClosed, MetadataFile


class AskedTables:
    """Where tables are on the branch of the run; the runner moves the run's own table, and nothing else."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent

    async def location(self, table: Qualified, at: str = MAIN) -> str | None:
        """Say where a table's metadata is on the run's branch."""
        return self._parent.ask(AskLocations(tables=[str(table)]), Locations).locations[str(table)]

    async def commit(self, branch: str, table: Qualified, expected: str | None, new: MetadataFile | None) -> None:
        """Move the run's table on its branch from one metadata file to the next."""
        asked = AskMove(expected=expected, new=None if new is None else NewMetadata(**asdict(new)))
        moved = self._parent.ask(asked, Moved)
        match moved.refused:
            case "closed":
                raise BranchClosed(moved.message)
            case "conflict":
                raise Conflict(moved.message)

    async def tables(self, at: str = MAIN) -> dict[Qualified, str]:
        """Refuse: a run knows the tables that it asks for by name."""
        _refuse("listing tables")

    async def namespaces(self) -> set[str]:
        """Refuse: the runner has seen to it that there is the namespace of the run's table."""
        _refuse("listing namespaces")

    async def ensure_namespace(self, namespace: str, layer: str) -> None:
        """Refuse, likewise."""
        _refuse("making a namespace")


def _refuse(what: str) -> NoReturn:
    raise Forbidden(f"{what} is not for the process of a run")
