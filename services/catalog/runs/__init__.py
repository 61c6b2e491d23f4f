"""Runs: from a request to one terminal state."""
