"""Which tables and landing zones there are, for those who look for one that is not there."""

from contracts.landing import ListZones
from services.runner.frames import AskSimilar, Similar
from services.runner.resources import Resources
from shared.errors import NotFound, Unavailable
from shared.similar import closest

_MOST_ZONES = 200


async def similar(resources: Resources, question: AskSimilar, at: str) -> Similar:
    """What may have been meant: a table of that reference, or a zone; nothing where that cannot be found out now."""
    try:
        if question.kind == "table":
            known = [str(table) for table in await resources.lakehouse.tables(at)]
        else:
            zones = await resources.bus.ask(ListZones(limit=_MOST_ZONES), timeout=2)
            known = [f"{zone.namespace}/{zone.name}" for zone in zones.zones]
    except (Unavailable, NotFound):
        return Similar(name=None)
    return Similar(name=closest(question.name, known))
