"""Tables on main: how they change, and what is asked about them."""

from typing import Literal
from uuid import UUID

from contracts.messages import Event


class TableChanged(Event, subject="table.changed"):
    """Main has a new snapshot of a table."""

    namespace: str
    layer: str
    name: str
    snapshot: str
    """The entry of the log of merges, an opaque string."""
    change: Literal["written", "dropped"] = "written"
    run_id: UUID | None = None
