"""What every lakehouse refuses, in the same words."""

import re

from contracts.names import Qualified
from shared.errors import AlreadyExists, Forbidden, Invalid, NotFound
from shared.lakehouse.port import MAIN, BranchClosed


def refuse_main(branch: str) -> None:
    """Main is no branch that is closed, deleted or merged."""
    if branch == MAIN:
        raise Invalid("main can be neither closed, deleted nor merged")


def refuse_commit_to_main(branch: str, table: Qualified) -> None:
    """Nothing is committed to main: what is there has been judged on a branch."""
    if branch == MAIN:
        raise Forbidden(f"{str(table)!r} on main changes by merges only")


def refuse_name_of_snapshot(branch: str) -> None:
    """A branch is not called what a snapshot may be called: a reference is one or the other."""
    if re.fullmatch(r"[0-9a-fA-F]*", branch):
        raise Invalid(f"{branch!r} cannot be the name of a branch: it looks like a snapshot")


def no_branch(name: str) -> NotFound:
    """No branch of this name was ever made, or it was deleted."""
    return NotFound(f"no branch {name!r}")


def branch_exists(name: str) -> AlreadyExists:
    """The name is taken."""
    return AlreadyExists(f"there is a branch {name!r} already")


def branch_closed(name: str) -> BranchClosed:
    """The branch was closed or merged, or its name was closed before it was made."""
    return BranchClosed(f"branch {name!r} is closed")
