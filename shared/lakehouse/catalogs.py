"""Catalogs of a branch for the process of a run, where PyIceberg works synchronously.

PyIceberg takes most of a second to import: only what writes tables imports this module.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.files import TableFiles, s3_properties
from shared.settings import Settings


@contextmanager
def catalogs(settings: Settings, role: str) -> Iterator[Callable[[str], BranchCatalog]]:
    """Log in to the lakehouse and give a function from the name of a branch to the PyIceberg catalog bound to it.

    Open it once a process: connections and what was read of immutable metadata are shared by all branches. A commit
    raises `BranchClosed` when the branch is closed, and `Unavailable` when a server cannot be reached, which leaves
    open whether it was made: the branch is then to be given up.
    """
    files = TableFiles(s3_properties(settings, role))
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(lakehouse(settings, role)) as port,
    ):
        yield lambda branch: BranchCatalog(branch, port, portal, files, settings.s3_bucket)
