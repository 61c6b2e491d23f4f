"""Open the lakehouse that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.lakehouse.embedded.lakehouse import MIGRATIONS, OWNER, embedded_lakehouse
from shared.lakehouse.nessie.lakehouse import nessie_lakehouse
from shared.lakehouse.port import Lakehouse
from shared.settings import Settings


@asynccontextmanager
async def lakehouse(settings: Settings, role: str) -> AsyncIterator[Lakehouse]:
    """Log in to the lakehouse as a role. The runner makes its tables; until then others get `Unavailable`."""
    match settings.lakehouse:
        case "embedded":
            migrations = MIGRATIONS if role == OWNER else None
            async with embedded_lakehouse(settings, role, migrations) as embedded:
                yield embedded
        case "nessie":
            async with nessie_lakehouse(settings, role) as nessie:
                yield nessie
