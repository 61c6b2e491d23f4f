"""`delete_insert`: rows of the table whose key occurs among the new rows go, and all new rows come in."""

from collections.abc import Sequence

from services.runner.engine.batch import Writing, Written


class DeleteInsert:
    """T = T without the keys of N, and all of N; several new rows may have one key."""

    needs: Sequence[str] = ("unique_key",)
    is_incremental = True

    def write(self, writing: Writing) -> Written:
        """Put all new rows in the place of the rows that have their keys."""
        batch = writing.begin()
        ids = batch.ids_of("unique_key", *writing.config.unique_key)
        with batch.new_rows() as rows:
            return batch.replace(rows, ids)
