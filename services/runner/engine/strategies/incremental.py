"""`incremental`: new rows replace those of the table that have the same key, and others are added."""

from collections.abc import Sequence

from services.runner.engine.batch import Writing, Written


class Incremental:
    """An upsert; of several new rows with one key the last wins, by the watermark if there is one, else by position."""

    needs: Sequence[str] = ("unique_key",)
    is_incremental = True

    def write(self, writing: Writing) -> Written:
        """Put the last new row of each key in the place of the rows that have the key."""
        batch = writing.begin()
        ids = batch.ids_of("unique_key", *writing.config.unique_key)
        with batch.new_rows() as rows:
            batch.keep_last(rows, ids)
            return batch.replace(rows, ids)
