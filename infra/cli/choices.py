"""Words of which a command takes one; those of the contracts would take their time to import."""

from enum import StrEnum


class LayerChoice(StrEnum):
    """Where a table stands on the way from raw to reported."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"


class StatusChoice(StrEnum):
    """What a run can be."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
