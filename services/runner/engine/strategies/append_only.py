"""`append_only`: the new rows come to those that the table has."""

from collections.abc import Sequence

from services.runner.engine.batch import Writing, Written


class AppendOnly:
    """T = T ∪ N."""

    needs: Sequence[str] = ()
    is_incremental = True

    def write(self, writing: Writing) -> Written:
        """Add the new rows."""
        batch = writing.begin()
        added = batch.new_files()
        return batch.finish(added, [], sum(file.record_count for file in added))
