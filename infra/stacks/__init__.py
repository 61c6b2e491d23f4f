"""Stacks: sets of servers that together carry the platform, ready for the services for as long as a block runs."""
