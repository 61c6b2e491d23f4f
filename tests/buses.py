"""Buses for tests that play a service, or anybody at all."""

from contracts.messages import queries
from infra.services import SERVICES
from shared.bus import Bus, connect
from shared.settings import Settings


def playing(settings: Settings, service: str) -> Bus:
    """The bus of a service, with all that it may ask."""
    bus = connect(settings, service)
    bus.asks(*SERVICES[service].declare().asked)
    return bus


def playing_all(settings: Settings) -> Bus:
    """A bus of the user `infra`, who may ask and say everything."""
    bus = connect(settings, "infra")
    bus.asks(*queries())
    return bus
