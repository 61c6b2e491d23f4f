"""How things are called in Nessie: a branch that is closed goes on under another name."""

import re
from typing import Final

from shared.errors import Invalid
from shared.lakehouse.refusals import refuse_name_of_snapshot

WAREHOUSE: Final = "rat"
"""What Nessie calls the bucket, in its settings and in the address of a catalog."""

_RUN: Final = "run-"
_CLOSED: Final = {"failed": "failed-", "merged": "merged-"}
"""What the branch of a run goes on as: `run-<id>-<n>` becomes `failed-<id>-<n>` or `merged-<id>-<n>`."""
_OTHERS: Final = "/"
"""Follows the prefix where the branch was not a run's: `x` becomes `failed-/x`."""


def closed_name(branch: str) -> str:
    """What a branch is called once it is closed unmerged."""
    return _renamed(branch, _CLOSED["failed"])


def merged_name(branch: str) -> str:
    """What a branch is called once it was merged."""
    return _renamed(branch, _CLOSED["merged"])


def branch_of(reference: str) -> tuple[str, bool]:
    """The name that a branch was made under, and whether it goes on under the name of a closed one."""
    for prefix in _CLOSED.values():
        if reference.startswith(prefix):
            rest = reference.removeprefix(prefix)
            return (rest.removeprefix(_OTHERS) if rest.startswith(_OTHERS) else _RUN + rest), True
    return reference, False


def prefixes(prefix: str) -> list[str]:
    """What the names of all references start with whose branch's name starts so."""
    if prefix.startswith(_RUN):
        return [prefix, *(closed + prefix.removeprefix(_RUN) for closed in _CLOSED.values())]
    return [prefix, *_CLOSED.values()]


def is_name(text: str) -> bool:
    """Whether a branch may be called so."""
    return re.fullmatch(r"[A-Za-z](?:(?!\.\.)[A-Za-z0-9._-])*(?<!\.)", text) is not None


def is_hash(text: str) -> bool:
    """Whether this may be the hash of a commit."""
    return re.fullmatch(r"[0-9a-fA-F]{8,64}", text) is not None


def check_name(branch: str) -> None:
    """Refuse what cannot be the name of a branch."""
    refuse_name_of_snapshot(branch)
    if branch_of(branch)[1] or not is_name(branch):
        raise Invalid(
            f"{branch!r} cannot be the name of a branch: a letter, then letters, digits, '.', '_' or '-',"
            f" and none of {', '.join(_CLOSED.values())} at its beginning"
        )


def _renamed(branch: str, prefix: str) -> str:
    return prefix + (branch.removeprefix(_RUN) if branch.startswith(_RUN) else _OTHERS + branch)
