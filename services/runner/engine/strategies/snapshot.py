"""`snapshot`: the partitions that occur among the new rows are replaced by them, the others stay."""

from collections.abc import Sequence

from services.runner.engine.batch import Writing, Written


class Snapshot:
    """A partition is a value of `partition_column`, whether the table's files are partitioned by it or not."""

    needs: Sequence[str] = ("partition_column",)
    is_incremental = True

    def write(self, writing: Writing) -> Written:
        """Put the new rows in the place of the partitions that they are of."""
        batch = writing.begin()
        assert writing.config.partition_column is not None, "the config was checked for what the strategy needs"
        ids = batch.ids_of("partition_column", writing.config.partition_column)
        with batch.new_rows() as rows:
            return batch.replace(rows, ids)
