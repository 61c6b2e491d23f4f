"""The settings that a process of its own is given: by variables, and by files where secrets are not to be variables."""

import os
from pathlib import Path
from typing import Final

from shared.errors import Invalid
from shared.settings import Settings

VARIABLE: Final = "RAT_SECRETS"
"""Names a folder with files that are called like the variables, in small letters: `rat_postgres_passwords`."""


def given_settings() -> Settings:
    """The settings of this process; a variable wins over a file. `Invalid` if there is no such folder."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return Settings()
    if not Path(folder).is_dir():
        raise Invalid(f"{VARIABLE} names {folder!r}, which is no folder")
    return Settings(_secrets_dir=folder)
