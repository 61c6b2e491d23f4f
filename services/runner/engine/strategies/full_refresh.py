"""`full_refresh`: the table holds the new rows and nothing else, also when there are none."""

from collections.abc import Sequence

from services.runner.engine.batch import Writing, Written
from services.runner.engine.touched import live_files


class FullRefresh:
    """T = N."""

    needs: Sequence[str] = ()
    is_incremental = False

    def write(self, writing: Writing) -> Written:
        """Put the new rows in the place of all that the table has."""
        batch = writing.begin()
        added = batch.new_files()
        return batch.finish(added, live_files(batch.commit), sum(file.record_count for file in added))
