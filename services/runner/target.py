"""The Iceberg table of a pipeline on the branch of an attempt: its schema, and one commit that changes its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pyiceberg.exceptions import ValidationError
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from contracts.names import Qualified
from services.runner.config import PartitionField, Strategy
from services.runner.domain import FailureKind
from services.runner.problems import WorkFailed
from shared.lakehouse.branch_catalog import BranchCatalog
from shared.lakehouse.commit import Commit, change, create

PIPELINE_ID: Final = "rat.pipeline_id"
"""The property of a table that says which pipeline writes it."""
RUN_ID: Final = "rat.run_id"
"""The property of a snapshot that says which run made it."""

_PROPERTIES: Final = {
    # For whoever else writes to the table: ours are kept small in any case.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
}


@dataclass(frozen=True)
class Target:
    """The table that a pipeline writes."""

    catalog: BranchCatalog
    name: Qualified
    pipeline_id: UUID
    run_id: UUID
    location: str | None
    """Where its metadata is on the branch; None where there is no such table. Whether it still is, the commit sees."""

    def load(self, strategy: str) -> Table | None:
        """The table on the branch, if it is this pipeline's; another one's is replaced as a whole or not at all."""
        if self.location is None:
            return None
        try:
            table = self.catalog.table_at(self.name, self.location)
        except ValidationError as error:
            what = str(error).partition("\n")[0]
            raise WorkFailed(
                FailureKind.SCHEMA,
                f"table {str(self.name)!r} is as only another engine makes them, and cannot be written: {what}",
            ) from error
        if table.properties.get(PIPELINE_ID, str(self.pipeline_id)) == str(self.pipeline_id):
            return table
        if strategy != Strategy.FULL_REFRESH:
            raise self._of_another(strategy)
        self.catalog.move(self.name, self.location, None)
        return None

    def give_up_view(self, strategy: str) -> None:
        """Take a view off the branch that the pipeline was, as it is to be a table."""
        view = self.catalog.load_view(tuple(self.name))
        is_mine = view.properties.get(PIPELINE_ID, str(self.pipeline_id)) == str(self.pipeline_id)
        if not is_mine and strategy != Strategy.FULL_REFRESH:
            raise self._of_another(strategy)
        self.catalog.drop_view(tuple(self.name))

    def _of_another(self, strategy: str) -> WorkFailed:
        return WorkFailed(
            FailureKind.SCHEMA,
            f"table {str(self.name)!r} was written by another pipeline of this name, which was deleted:"
            f" the first run of this one must be full_refresh, not {strategy}",
        )

    def begin(self, table: Table | None, schema: Schema, partitions: Sequence[PartitionField] = ()) -> Commit:
        """Begin a commit in which the table has these columns and is partitioned so; None is a table to be created.

        A column has the id that the table knows it by, whatever id it comes with; it is another column where its
        values cannot be read as the type that is wanted. `ValueError` where a partition field does not fit its column.
        """
        fields = [(field.column, field.transform) for field in partitions]
        of_run = {RUN_ID: str(self.run_id)}
        if table is None:
            properties = _PROPERTIES | {PIPELINE_ID: str(self.pipeline_id)}
            return create(self.catalog, self.name, schema, fields, properties=properties, snapshot_properties=of_run)
        return change(self.catalog, self.name, table, schema, fields, snapshot_properties=of_run)
