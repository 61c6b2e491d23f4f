"""Catalog: namespaces, pipelines and their code in one half, runs in the other, in one schema."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.catalog.code import service as code_service
from services.catalog.code.service import Code
from services.catalog.runs import service as runs_service
from services.catalog.runs.service import RunsService
from services.catalog.upkeep import service as upkeep_service
from services.catalog.upkeep.service import UpkeepService
from shared.background import background, every
from shared.bus import Bus, connect
from shared.database import database
from shared.object_store import object_store
from shared.outbox import relay
from shared.settings import Settings

MIGRATIONS: Final = Path(__file__).parent / "migrations"
CANCEL_SECONDS: Final = 1.0
"""How often runners are told which runs are not wanted."""


def wire(bus: Bus, code: Code, runs: RunsService, upkeep: UpkeepService) -> None:
    """Register what catalog hears, says, asks and answers."""
    code_service.wire(bus, code)
    runs_service.wire(bus, runs)
    upkeep_service.wire(bus, upkeep)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[None]:
    """Run catalog until the block is left."""
    bus = connect(settings, "catalog")
    async with database(settings, "catalog", MIGRATIONS) as db, object_store(settings, "catalog") as objects:
        runs = RunsService(db, objects, bus, runs_service.limits(settings))
        code = Code(db, objects, bus, settings, on_removed=runs.cancel_runs_of)
        wire(bus, code, runs, UpkeepService(db))
        bus.check("object_store", lambda: objects.reach("default/pipelines/"))
        patience = min(settings.tick_interval_seconds, settings.run_silence_seconds / 4)
        async with (
            relay(db, bus),
            bus.running(),
            background(
                lambda: every(CANCEL_SECONDS, runs.repeat_cancels),
                lambda: every(patience, runs.queue_silent_runs_again),
                lambda: every(settings.tick_interval_seconds, code.clear_removed),
            ),
        ):
            yield
