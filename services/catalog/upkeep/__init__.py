"""Upkeep of the lakehouse: which runner looks after what, so that no two do at once."""
