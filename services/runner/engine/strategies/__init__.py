"""The merge strategies that are built in, each registered as a plugin: entry points of the group `rat.strategies`."""
