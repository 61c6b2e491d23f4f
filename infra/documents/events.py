"""The table of events in `docs/architecture.md`: who says what, and who hears it."""

from contracts.messages import Event, events
from infra.services import SERVICES
from shared.bus import Bus

BEGIN = "<!-- events: written by `make docs` -->"
END = "<!-- end of events -->"


def declared() -> dict[str, Bus]:
    """Each service's name with what it declares; imports every contract on the way."""
    return {name: service.declare() for name, service in SERVICES.items()}


def producers(event: type[Event], buses: dict[str, Bus]) -> list[str]:
    """The services that say an event."""
    return [name for name, bus in buses.items() if event in bus.said]


def consumers(event: type[Event], buses: dict[str, Bus]) -> list[str]:
    """The services that hear an event."""
    return [name for name, bus in buses.items() if event in bus.heard]


def with_event_table(text: str) -> str:
    """The document with its table of events as the code has it now; `ValueError` if it has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/architecture.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{_table()}\n{END}{after}"


def _table() -> str:
    buses = declared()
    lines = ["| event | said by | heard by | says |", "|---|---|---|---|"]
    for event in events():
        said = ", ".join(producers(event, buses)) or event.outside or ""
        heard = ", ".join(consumers(event, buses)) or event.outside or ""
        summary = (event.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"| `{event.subject}` | {said} | {heard} | {summary} |")
    return "\n".join(lines)
