"""The settings that a process of its own is given: by variables, and by files where secrets are not to be variables."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from shared.errors import Invalid
from shared.settings import Settings
from shared.similar import closest

log = structlog.get_logger()

_PREFIX: Final = "RAT_"
VARIABLE: Final = "RAT_SECRETS"
"""Names a folder with files that are called like the variables, in small letters: `rat_postgres_passwords`."""

OTHERS: Final = frozenset(
    {
        VARIABLE,
        # What the commands read that speak to a platform.
        *("RAT_URL", "RAT_TOKEN", "RAT_DATA"),
        # What `compose.yaml` reads in the shell that it is started from.
        *("RAT_IMAGE", "RAT_POSTGRES_IMAGE", "RAT_NATS_IMAGE", "RAT_MINIO_IMAGE", "RAT_NESSIE_IMAGE", "RAT_PUBLISH"),
        *("RAT_RUNNER_MEMORY", "RAT_RUNNER_CPUS", "RAT_QUERY_MEMORY", "RAT_QUERY_CPUS"),
    }
)
"""Variables that are called like settings, and are none."""


def given_settings() -> Settings:
    """The settings of this process; a variable wins over a file. `Invalid` if there is no such folder."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return Settings()
    if not Path(folder).is_dir():
        raise Invalid(f"{VARIABLE} names {folder!r}, which is no folder")
    return Settings(_secrets_dir=folder)


def warn_of_unknown() -> None:
    """Log the variables and files that are called like settings, and that nobody reads: a name may be misspelled.

    They do not stop anything: who runs containers may set variables of such names of its own.
    """
    folder = Path(os.environ.get(VARIABLE, os.devnull))
    files = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if unknown := unknown_settings([*os.environ, *files]):
        log.warning("settings that are not known", names=unknown)


def unknown_settings(names: Iterable[str]) -> list[str]:
    """Those of these names that look like a setting's and are none, with the one that may have been meant."""
    settings = [name.upper() for name in Settings.model_fields]
    known = OTHERS | {_PREFIX + name for name in settings}
    return [
        f"{name}{_meant(name, settings)}"
        for name in sorted(names)
        if name.upper().startswith(_PREFIX) and name.upper() not in known
    ]


def _meant(name: str, settings: Iterable[str]) -> str:
    # Without what all of them begin with, which makes any two alike.
    meant = closest(name.upper().removeprefix(_PREFIX), settings)
    return "" if meant is None else f", did you mean {_PREFIX}{meant}?"
