"""The work on one attempt inside its process: compile, write, test."""

from dataclasses import replace
from typing import Literal, TypeAlias

import duckdb

from contracts.names import Qualified
from contracts.reports import Input, QualityResult, TableChanges
from contracts.runs import Phase
from services.runner import hooks
from services.runner.clock import Clock
from services.runner.compile import Compiled
from services.runner.config import Config
from services.runner.engine.batch import Written
from services.runner.engine.binding import Bound, Query
from services.runner.engine.changes import changes
from services.runner.engine.quality import run_tests
from services.runner.engine.statement import Statement
from services.runner.engine.views import view_query, write_view_of
from services.runner.engine.write import write
from services.runner.frames import Comparing, PhaseDone, Worked, WorkOrder
from services.runner.memory import forget_peak, peak_bytes
from services.runner.plugins import HookRun, WrittenRows
from services.runner.python.reading import NothingNew, rows_of_code
from services.runner.python.source import Source
from services.runner.reading import Reading
from services.runner.target import Target
from services.runner.workplace import Workplace

PhaseName: TypeAlias = Literal["compile", "write", "quality"]


class Work:
    """The work on one attempt, phase by phase."""

    def __init__(self, workplace: Workplace, order: WorkOrder) -> None:
        self._workplace = workplace
        self._parent = workplace.parent
        self._connection = workplace.connection
        self._order = order
        self._pipeline = Qualified.parse(order.pipeline)
        self._reading = Reading(workplace, self._pipeline)

    @property
    def inputs(self) -> list[Input]:
        """What was read so far."""
        return self._reading.inputs

    def do(self) -> Worked:
        """Compile, write and test; what is said at the end is for the runner to merge."""
        reading, order = self._reading, self._order
        forget_peak()
        compiling = Clock()
        compiled = reading.compile(
            order.files, run_id=order.run_id, started_at=order.started_at, parameters=order.parameters
        )
        if isinstance(compiled.code, Statement):
            reading.claim_files(compiled.code)
        compiled = replace(compiled, tests=tuple(reading.with_files(test) for test in compiled.tests))
        try:
            if isinstance(compiled.code, Source):
                written, on_main = self._run(compiled, compiled.code, compiling)
            else:
                written, on_main = self._query(compiled, compiled.code, compiling)
        except NothingNew:
            self._parent.log("there are no new files: nothing is written")
            return self._worked(None, [], [])
        results = self._test(compiled)
        has_rows = order.dry_run and not compiled.is_view
        return self._worked(written, results, self._compare(compiled, on_main) if has_rows else [])

    def _query(self, compiled: Compiled, statement: Statement, compiling: Clock) -> tuple[Written, str | None]:
        """Write the rows of a query; says as well where the table was before."""
        reading = self._reading
        if reading.has_no_new_files:
            raise NothingNew
        tables = {table for statement in compiled.statements for table in statement.tables_named}
        compiling.pause()
        reading.relations.locate({self._pipeline, *tables})
        compiling.resume()
        before, was_view = reading.relations.location_of(self._pipeline), reading.relations.is_view(self._pipeline)
        if compiled.is_view:
            # Before anything is read, so that a view that would read itself is told.
            reading.relations.become_view(self._pipeline, view_query(statement))
        bound = reading.bind(statement)
        reading.note_tables(statement.tables_named)
        self._say_phase("compile", compiling, tables=len(statement.tables_named), files=reading.files_read)
        hooks.call("before_write", self._hook_run(compiled.config), bound.sql)
        writing = Clock()
        if compiled.is_view:
            return self._write_view(compiled, statement, bound, writing, before), before
        return self._write(self._workplace.connection, compiled, bound, writing, was_view), before

    def _run(self, compiled: Compiled, source: Source, compiling: Clock) -> tuple[Written, str | None]:
        """Run Python and write what it gives; says as well where the table was before."""
        self._say_phase("compile", compiling)
        writing = Clock()
        with rows_of_code(self._workplace, self._reading, compiled, source) as rows:
            hooks.call("before_write", self._hook_run(compiled.config), source.text)
            relations = self._reading.relations
            before, was_view = relations.location_of(self._pipeline), relations.is_view(self._pipeline)
            return self._write(rows.connection, compiled, rows, writing, was_view), before

    def _hook_run(self, config: Config) -> HookRun:
        order = self._order
        return HookRun(
            run_id=order.run_id,
            attempt=order.attempt,
            pipeline=self._pipeline,
            pipeline_id=order.pipeline_id,
            started_at=order.started_at,
            config=config,
            parameters=order.parameters,
            log=self._parent.log,
        )

    def _write(
        self,
        connection: duckdb.DuckDBPyConnection,
        compiled: Compiled,
        query: Query,
        writing: Clock,
        was_view: bool,
    ) -> Written:
        target = self._target(self._reading.relations.location_of(self._pipeline))
        if was_view:
            target.give_up_view(compiled.config.merge_strategy)
        written = write(connection, query, target, compiled.config, self._order.started_at, warn=self._warn)
        self._reading.relations.become_table(self._pipeline, written.location, written.rows_alone)
        self._say_written(compiled, written, writing)
        return written

    def _warn(self, message: str) -> None:
        self._parent.log(message, level="warning")

    def _write_view(
        self, compiled: Compiled, statement: Statement, bound: Bound, writing: Clock, before: str | None
    ) -> Written:
        written = write_view_of(self._connection, bound, view_query(statement), self._target(before))
        self._say_written(compiled, written, writing)
        return written

    def _target(self, location: str | None) -> Target:
        catalog = self._workplace.catalog_of(self._order.branch)
        return Target(catalog, self._pipeline, self._order.pipeline_id, self._order.run_id, location)

    def _say_written(self, compiled: Compiled, written: Written, writing: Clock) -> None:
        rows = WrittenRows(written.rows, written.files, written.bytes, written.location)
        hooks.call("after_write", self._hook_run(compiled.config), rows)
        self._say_phase(
            "write",
            writing,
            rows=written.rows,
            files=written.files,
            bytes=written.bytes,
            memory_peak_bytes=peak_bytes(),
        )

    def _test(self, compiled: Compiled) -> list[QualityResult]:
        if not compiled.tests:
            hooks.call("after_tests", self._hook_run(compiled.config), [])
            return []
        testing = Clock()
        tests = [self._reading.ready(test) for test in compiled.tests]
        results = run_tests(self._connection, tests, threads=self._workplace.threads)
        hooks.call("after_tests", self._hook_run(compiled.config), results)
        self._say_phase("quality", testing, tests=len(results))
        return results

    def _compare(self, compiled: Compiled, on_main: str | None) -> list[TableChanges]:
        """What the branch changes of main, which the branch was made from."""
        self._parent.say(Comparing())
        on_branch = self._reading.relations.location_of(self._pipeline)
        found = changes(
            self._connection,
            str(self._pipeline),
            main=on_main,
            branch=on_branch,
            key=compiled.config.unique_key,
        )
        self._parent.log(
            f"dry run: {found.rows_added} rows would be added, {found.rows_removed} removed,"
            f" {found.rows_changed} changed; {len(found.schema_changes)} columns would change"
        )
        return [found]

    def _worked(self, written: Written | None, results: list[QualityResult], found: list[TableChanges]) -> Worked:
        return Worked(
            has_written=written is not None and written.has_changed,
            rows_written=written.rows if written is not None else 0,
            files_read=self._reading.files_read,
            inputs=self.inputs,
            quality=results,
            changes=found,
        )

    def _say_phase(self, name: PhaseName, clock: Clock, **metadata: int) -> None:
        self._parent.say(PhaseDone(phase=Phase(name=name, duration_ms=clock.milliseconds(), metadata=metadata)))
