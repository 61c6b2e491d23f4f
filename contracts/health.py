"""Whether a service and what it depends on can be reached."""

from typing import Literal

from contracts.messages import Message, Query


class Dependency(Message):
    """A server or service that was just asked whether it is there."""

    name: str
    state: Literal["up", "down"]
    latency_ms: float
    message: str | None = None
    """What went wrong."""


class Health(Message):
    """A service that answers, and what it depends on."""

    service: str
    version: str
    dependencies: list[Dependency]


class CheckHealth(Query[Health], subject="*.health"):
    """Ask a service how it is; every service answers it by itself while it runs."""

    service: str

    def address(self) -> str:
        """The subject of this service's health."""
        return f"{self.service}.health"
