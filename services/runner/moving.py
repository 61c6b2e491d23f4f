"""A table, or a view, is moved on a branch for the process that has written its metadata."""

from contracts.names import Qualified
from services.runner.domain import FailureKind
from services.runner.frames import AskMove, Moved, NewView
from services.runner.resources import Resources
from services.runner.watch import Broken
from shared.errors import Conflict
from shared.lakehouse.port import BranchClosed, MetadataFile, ViewFile


async def move(resources: Resources, branch: str, table: Qualified, question: AskMove) -> Moved:
    """Move this table on this branch and nothing else, whatever the process may have been made to ask."""
    new: MetadataFile | ViewFile | None = None
    if question.new is not None:
        folder = f"s3://{resources.settings.s3_bucket}/{'/'.join(table)}/"
        if not question.new.location.startswith(folder):
            raise Broken(FailureKind.INTERNAL, f"{question.new.location} is no place for the metadata of {table}")
        kind = ViewFile if isinstance(question.new, NewView) else MetadataFile
        new = kind(**question.new.model_dump())
    try:
        await resources.lakehouse.commit(branch, table, question.expected, new)
    except BranchClosed as error:
        return Moved(refused="closed", message=error.message)
    except Conflict as error:
        return Moved(refused="conflict", message=error.message)
    return Moved(refused=None)
