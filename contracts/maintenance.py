"""Upkeep of the lakehouse that an operator asks for."""

from pydantic import Field

from contracts.messages import Message, Query


class CollectedTable(Message):
    """What was collected of one table's files."""

    table: str
    files: int
    bytes: int


class CollectedFiles(Message):
    """What a collection removed, or would."""

    files: int
    bytes: int
    needed_files: int
    """Files that main, a branch or the log of merges needs."""
    young_files: int
    """Files that nothing needs so far, and that are too young to be collected."""
    tables: list[CollectedTable]
    """Those with the most bytes, at most 500."""


class CollectFiles(Query[CollectedFiles], subject="runner.collect_files"):
    """Remove the files of tables that neither main, nor a branch, nor the log of merges needs any more."""

    dry_run: bool = False
    """Only say what would be removed."""
    grace_hours: float = Field(default=48, ge=1, le=876_000)
    """Younger files stay: longer than any run takes, which writes files before anything needs them."""
    history_days: float | None = Field(default=None, ge=1, le=36_500)
    """For how long the entries of the log stay readable; for good, if nothing is said."""
