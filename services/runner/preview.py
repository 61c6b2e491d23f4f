"""A preview inside its process: the code is compiled and run over what the runner gives it, and nothing is written."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from contracts.messages import utc_now
from contracts.names import Qualified
from contracts.previews import PreviewColumn, PreviewPhase
from services.runner.clock import Clock
from services.runner.compile import Compiled
from services.runner.engine.binding import Bound
from services.runner.engine.quality import run_tests
from services.runner.engine.samples import json_safe, rows_of
from services.runner.engine.session import errors_of, limit_memory
from services.runner.engine.statement import Statement
from services.runner.frames import Previewed, PreviewOrder, Tested, TestOrder
from services.runner.memory import forget_peak, peak_bytes
from services.runner.python.reading import NothingNew, rows_of_code
from services.runner.python.source import Source
from services.runner.reading import Reading
from services.runner.workplace import Workplace

_NO_RUN: Final = UUID(int=0)
_BATCH_ROWS: Final = 256
_MOST_BYTES: Final = 8_000_000
"""Of the rows as JSON; what comes after them is not shown."""


@dataclass
class _Shown:
    """The first rows of a result as JSON knows them: so many, and no more than can be looked at."""

    most: int
    rows: list[dict[str, object]] = field(default_factory=list)
    _bytes: int = 0
    _is_cut: bool = False

    @property
    def room(self) -> int:
        """How many rows may come."""
        return 0 if self._is_cut else self.most - len(self.rows)

    @property
    def warnings(self) -> list[str]:
        """What is to be said about the rows."""
        return [f"only {len(self.rows)} rows are shown: more of them are too large to look at"] if self._is_cut else []

    def add(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Take rows for which there is room."""
        for row in rows:
            shown = {name: json_safe(value) for name, value in row.items()}
            self._bytes += len(repr(shown))
            self._is_cut = self._bytes > _MOST_BYTES and bool(self.rows)
            if self._is_cut:
                return
            self.rows.append(shown)


class PreviewWork:
    """The work on one preview."""

    def __init__(self, workplace: Workplace, order: PreviewOrder) -> None:
        self._workplace = workplace
        self._connection = workplace.connection
        self._parent = workplace.parent
        self._order = order
        self._reading = Reading(workplace, Qualified.parse(order.pipeline))

    def do(self) -> None:
        """Tell columns, rows, plan and count, each as soon as it is known: time may end before the last of them."""
        forget_peak()
        order = self._order
        with self._phase("compile"):
            compiled = self._reading.compile(order.files, run_id=_NO_RUN, started_at=utc_now(), parameters={})
            ready = self._bound(compiled.code) if isinstance(compiled.code, Statement) else compiled.code
        if isinstance(ready, Source):
            with suppress(NothingNew):
                self._run(compiled, ready)
        else:
            self._query(ready)

    def _run(self, compiled: Compiled, source: Source) -> None:
        """Run Python once: what it gives is told when there is enough of it, and counted to the end."""
        with self._phase("query"), rows_of_code(self._workplace, self._reading, compiled, source) as rows:
            with errors_of(rows):
                reader = rows.connection.execute(rows.sql).to_arrow_reader(_BATCH_ROWS)
                columns = [
                    PreviewColumn(name=name, type=str(kind)) for name, kind, *_ in rows.connection.description or []
                ]
                shown = _Shown(self._order.limit)
                count = 0
                for batch in reader:
                    shown.add(rows_of(batch.slice(0, shown.room)))
                    count += batch.num_rows
            self._parent.say(Previewed(columns=columns, rows=shown.rows, warnings=shown.warnings))
            self._parent.say(Previewed(total_row_count=count))

    def _query(self, bound: Bound) -> None:
        with self._phase("plan"):
            self._parent.say(Previewed(explain_output=self._plan(bound)))
        with self._phase("query"):
            self._parent.say(self._rows(bound))
        with self._phase("count"):
            self._parent.say(Previewed(total_row_count=self._count(bound)))

    def _bound(self, statement: Statement) -> Bound:
        self._reading.claim_files(statement)
        self._reading.relations.locate({self._reading.pipeline, *statement.tables_named})
        return self._reading.bind(statement)

    def _plan(self, bound: Bound) -> str:
        prefix = "explain "
        with errors_of(bound, prefix):
            return "\n".join(str(row[1]) for row in self._connection.execute(f"{prefix}{bound.sql}").fetchall())

    def _rows(self, bound: Bound) -> Previewed:
        prefix = "select * from (\n"
        limit = self._order.limit
        with errors_of(bound, prefix):
            result = self._connection.execute(f"{prefix}{bound.sql}\n) limit {limit}")
            columns = [PreviewColumn(name=name, type=str(kind)) for name, kind, *_ in result.description or []]
            names, shown = [column.name for column in columns], _Shown(limit)
            while shown.room and (batch := result.fetchmany(_BATCH_ROWS)):
                shown.add(dict(zip(names, values, strict=True)) for values in batch)
        return Previewed(columns=columns, rows=shown.rows, warnings=shown.warnings)

    def _count(self, bound: Bound) -> int:
        prefix = "select count(*) from (\n"
        with errors_of(bound, prefix):
            row = self._connection.execute(f"{prefix}{bound.sql}\n)").fetchone()
        assert row is not None, "a count is one row"
        return int(row[0])

    @contextmanager
    def _phase(self, name: Literal["compile", "plan", "query", "count"]) -> Iterator[None]:
        clock = Clock()
        yield
        phase = PreviewPhase(name=name, duration_ms=clock.milliseconds())
        self._parent.say(Previewed(phase=phase, memory_peak_bytes=peak_bytes()))


def judge_main(workplace: Workplace, order: TestOrder) -> Tested:
    """Run the tests of a pipeline on what main holds."""
    reading = Reading(workplace, Qualified.parse(order.pipeline))
    limit_memory(workplace.connection, workplace.memory_limit_bytes)
    compiled = reading.compile_tests(order.files, run_id=_NO_RUN, started_at=utc_now())
    tests = [reading.with_files(one) for one in compiled]
    statements = [one.statement for one in tests if one.statement is not None]
    reading.relations.locate(
        {reading.pipeline, *(table for statement in statements for table in statement.tables_named)}
    )
    ready = [reading.ready(one) for one in tests]
    return Tested(results=run_tests(workplace.connection, ready, threads=workplace.threads))
