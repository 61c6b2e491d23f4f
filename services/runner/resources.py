"""What a runner works with."""

from dataclasses import dataclass, field

from services.runner.changed import ChangedTables
from services.runner.code import Code
from services.runner.gaps import Gaps
from services.runner.keys import RunKeys
from services.runner.pool import Pool
from shared.bus import Bus
from shared.lakehouse.port import Lakehouse
from shared.object_store import ObjectStore
from shared.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What attempts are worked on with."""

    bus: Bus
    lakehouse: Lakehouse
    objects: ObjectStore
    code: Code
    pool: Pool
    keys: RunKeys
    settings: Settings
    changed: ChangedTables = field(default_factory=ChangedTables)
    """What runs have put on main, for whoever looks after it."""
    gaps: Gaps = field(default_factory=Gaps)
    """When to change what runs write."""
