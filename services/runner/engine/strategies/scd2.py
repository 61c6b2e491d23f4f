"""`scd2`: the table keeps the history of each key: what its values were, from when and until when."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import duckdb

from services.runner.engine.batch import Batch, Writing, Written, count_of, engine_errors, spooled, temporary
from services.runner.engine.parquet import FILE, ROW
from services.runner.engine.partitions import column
from services.runner.engine.schema import Column, field_of
from services.runner.engine.statement import string
from services.runner.engine.touched import candidates, live_files, must_have_ids, same
from shared.lakehouse.manifests import PresentFile

IS_CURRENT: Final = "is_current"

_COMPARED: Final = '"__rat_compared"'
_CLOSED: Final = '"__rat_closed"'
_SLICES: Final = 8
"""Parts that keys are compared in where memory is too little for all at once."""


class Scd2:
    """A key with changed values closes its current row, that without an end, and opens a new one.

    A key with the same values changes nothing; one that is gone stays open, unless `close_missing` says otherwise. Of
    several new rows with one key the last counts, as for `incremental`.
    """

    needs: Sequence[str] = ("unique_key",)
    is_incremental = True

    def write(self, writing: Writing) -> Written:
        """Close the rows that are no longer so, and open those that are."""
        config, kind = writing.config, writing.connection.type
        batch = writing.begin(
            Column(config.scd_valid_from, kind("TIMESTAMPTZ")),
            Column(config.scd_valid_to, kind("TIMESTAMPTZ")),
            Column(IS_CURRENT, kind("BOOLEAN")),
        )
        keys = batch.ids_of("unique_key", *config.unique_key)
        with batch.new_rows() as rows:
            batch.keep_last(rows, keys)
            return _History(batch, rows, keys).write()


@dataclass(frozen=True)
class _History:
    """The table, and the new rows to compare it with, one of each key."""

    batch: Batch
    rows: str
    keys: tuple[int, ...]

    def write(self) -> Written:
        """Compare the new rows with the current ones of the table, and write what has changed."""
        connection = self.batch.connection
        with temporary(connection, _COMPARED, _CLOSED):
            with engine_errors():
                self._compare()
                self._find_closed()
                closed = count_of(connection, _CLOSED)
                opened = count_of(connection, f"({self._opened()})")
                touched = self._touched()
            parts = [self._rewritten(touched)] if touched else []
            parts += [self._opened()] if opened else []
            added = self.batch.files_of(" union all ".join(parts), opened) if parts else []
            return self.batch.finish(added, touched, opened + closed)

    @cached_property
    def _own(self) -> tuple[int, int, int]:
        """The columns of ours: from when, until when, and whether it is current."""
        config = self.batch.writing.config
        return (
            self.batch.id_of(config.scd_valid_from),
            self.batch.id_of(config.scd_valid_to),
            self.batch.id_of(IS_CURRENT),
        )

    @cached_property
    def _begins(self) -> bool:
        """Whether the table has had no history so far: all its rows are current."""
        table = self.batch.writing.table
        return table is not None and field_of(table.schema(), IS_CURRENT) is None

    @cached_property
    def _now(self) -> str:
        return f"{string(self.batch.writing.started_at.isoformat())}::timestamptz"

    @cached_property
    def _files(self) -> list[PresentFile]:
        files = live_files(self.batch.commit)
        must_have_ids(self.batch.connection, self.batch.commit, files)
        return files

    @cached_property
    def _open_files(self) -> list[PresentFile]:
        """The files that may hold rows without an end."""
        _, end, _ = self._own
        return [file for file in self._files if (file.entry.data_file.null_value_counts or {}).get(end) != 0]

    def _current(self, files: Sequence[PresentFile], ids: Sequence[int]) -> str:
        """The current rows among those of some files: a relation."""
        _, end, _ = self._own
        columns = ", ".join(column(number) for number in ids)
        rows = self.batch.table_rows(files, [*ids, end])
        return f"(select {columns}, {self._named(FILE)} as {FILE}, {ROW} from {rows} where {column(end)} is null)"

    def _named(self, file: str) -> str:
        """The location of a file, which comes with each row, as a number with a name: tables of them are small then."""
        return f"{file}::enum({', '.join(string(one.location) for one in self._files)})"

    def _compare(self) -> None:
        """Find the current rows of the keys, and whether the values are others now."""
        batch = self.batch
        files = candidates(batch.connection, batch.commit, self._open_files, self.rows, self.keys)
        if not files:
            nothing = f"select 0 as place, '' as {FILE}, 0 as {ROW}, false as is_changed where false"
            batch.connection.execute(f"create or replace temp table {_COMPARED} as {nothing}")
            return
        values = [one for one in batch.ids if one not in (*self.keys, *self._own)]
        current = self._current(files, [*self.keys, *values])
        try:
            self._compare_with(current, values)
        except duckdb.OutOfMemoryException:
            with spooled(batch.connection, f"from {current}") as kept:
                self._compare_with(kept, values, _SLICES)

    def _compare_with(self, current: str, values: Sequence[int], slices: int = 1) -> None:
        """Compare slice by slice of the keys: a join holds whole rows, those of one slice at a time."""
        changes = [f"t.{column(one)} is distinct from n.{column(one)}" for one in values]
        compared = (
            f"select n.rowid as place, t.{FILE}, t.{ROW}, {' or '.join(changes) or 'false'} as is_changed"
            f" from {current} t join {self.rows} n on {same(self.keys, 't', 'n')}"
        )
        for number in range(slices):
            into = f"insert into {_COMPARED}" if number else f"create or replace temp table {_COMPARED} as"
            wanted = f"where {self._slice('t', slices)} = {number} and {self._slice('n', slices)} = {number}"
            self.batch.connection.execute(f"{into} {compared} {wanted if slices > 1 else ''}")

    def _slice(self, rows: str, slices: int) -> str:
        """The number of the slice that the key of a row is in."""
        return f"hash({', '.join(f'{rows}.{column(one)}' for one in self.keys)}) % {slices}"

    def _find_closed(self) -> None:
        """Name the rows of the table that end: those of changed keys, and of missing ones where that is asked for."""
        closed = (
            f"select {FILE}, {ROW} from {_COMPARED} where place in (select place from {_COMPARED} where is_changed)"
        )
        if self.batch.writing.config.close_missing and self._open_files:
            closed += (
                f" union all select t.{FILE}, t.{ROW} from {self._current(self._open_files, self.keys)} t"
                f" anti join {self.rows} n on {same(self.keys, 't', 'n')}"
            )
        self.batch.connection.execute(f"create or replace temp table {_CLOSED} as {closed}")

    def _touched(self) -> list[PresentFile]:
        """The files that hold rows that end; all of them where the table has had no history so far."""
        if self._begins:
            return self._files
        found = self.batch.connection.execute(f"select distinct {FILE} from {_CLOSED}").fetchall()
        locations = {location for (location,) in found}
        return [file for file in self._files if file.location in locations]

    def _rewritten(self, files: Sequence[PresentFile]) -> str:
        """The rows of some files, those that end with their end."""
        _, end, is_current = self._own
        ended = f"z.{FILE} is not null"
        values = {
            end: f"case when {ended} then {self._now} else t.{column(end)} end",
            is_current: f"not {ended} and {'true' if self._begins else f't.{column(is_current)}'}",
        }
        columns = ", ".join(f"{values.get(one, f't.{column(one)}')} as {column(one)}" for one in self.batch.ids)
        return (
            f"select {columns} from {self.batch.table_rows(files, self.batch.ids)} t"
            f" left join {_CLOSED} z on {self._named(f't.{FILE}')} = z.{FILE} and t.{ROW} = z.{ROW}"
        )

    def _opened(self) -> str:
        """The new rows whose key has no current row, or one with other values, as they begin."""
        start, _, is_current = self._own
        values = {start: self._now, is_current: "true"}
        columns = ", ".join(f"{values.get(one, f'n.{column(one)}')} as {column(one)}" for one in self.batch.ids)
        same_as_before = f"(select place from {_COMPARED} group by place having not bool_or(is_changed))"
        return f"select {columns} from {self.rows} n anti join {same_as_before} u on n.rowid = u.place"
