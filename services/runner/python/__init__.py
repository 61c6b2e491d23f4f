"""Pipelines written in Python: an author's code is read, run with the names of a run, and its result is written."""
