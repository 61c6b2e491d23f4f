"""The work on one attempt inside its process: compile, write, test."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import BinaryIO, Literal, TypeAlias, TypeVar

import duckdb

from contracts.landing import ZoneForm
from contracts.messages import Message, utc_now
from contracts.names import Qualified
from contracts.reports import Input, QualityResult
from contracts.runs import LogLine, Phase
from services.runner import hooks
from services.runner.compile import Compiled, CompiledTest, compile_pipeline
from services.runner.config import Config, is_incremental
from services.runner.engine.batch import Written
from services.runner.engine.binding import Bound, ZoneContent, bind
from services.runner.engine.quality import QualityTest, run_tests
from services.runner.engine.session import limit_memory
from services.runner.engine.statement import Statement
from services.runner.engine.watermark import watermark
from services.runner.engine.write import write
from services.runner.frames import (
    AskFiles,
    AskLocations,
    AskSimilar,
    Configured,
    Locations,
    Logged,
    PhaseDone,
    Similar,
    ToProcess,
    Worked,
    WorkOrder,
    ZoneFiles,
    frame,
    read_in_process,
)
from services.runner.plugins import HookRun, WrittenRows
from services.runner.problems import AuthorError
from services.runner.target import Target
from services.runner.template import Facts, Sql, ZoneCall
from shared.lakehouse.branch_catalog import BranchCatalog

A = TypeVar("A", bound=Message)
PhaseName: TypeAlias = Literal["compile", "write", "quality"]


class Parent:
    """The runner that this process belongs to."""

    def __init__(self, receive: BinaryIO, send: BinaryIO) -> None:
        self._send = send
        self._sending = Lock()
        self._received: SimpleQueue[ToProcess] = SimpleQueue()
        Thread(target=self._receive_for_ever, args=(receive,), daemon=True, name="parent").start()

    def say(self, message: Message) -> None:
        """Send a message."""
        with self._sending:
            self._send.write(frame(message))
            self._send.flush()

    def hear(self) -> ToProcess:
        """Wait for the next message."""
        return self._received.get()

    def ask(self, question: Message, answer: type[A]) -> A:
        """Send a message and wait for the one that answers it."""
        self.say(question)
        heard = self.hear()
        assert isinstance(heard, answer), f"{type(question).__name__} was answered by {type(heard).__name__}"
        return heard

    def log(self, message: str) -> None:
        """Write a line into the run's log."""
        self.say(Logged(line=LogLine(timestamp=utc_now(), message=message)))

    def _receive_for_ever(self, receive: BinaryIO) -> None:
        while True:
            try:
                self._received.put(read_in_process(receive))
            except EOFError:
                # Whoever reads what we do is gone: nothing of it may go on, no query and no commit.
                os._exit(0)


@dataclass(frozen=True)
class Workplace:
    """What a process keeps warm from attempt to attempt."""

    parent: Parent
    connection: duckdb.DuckDBPyConnection
    catalog_of: Callable[[str], BranchCatalog]
    bucket: str
    threads: int
    memory_limit_bytes: int


class Work:
    """The work on one attempt, phase by phase."""

    def __init__(self, workplace: Workplace, order: WorkOrder) -> None:
        self._workplace = workplace
        self._parent = workplace.parent
        self._connection = workplace.connection
        self._order = order
        self._pipeline = Qualified.parse(order.pipeline)
        self._locations: dict[Qualified, str | None] = {}
        self._zones: dict[tuple[str, str, ZoneForm], ZoneContent] = {}
        self.inputs: list[Input] = []

    def do(self) -> Worked:
        """Compile, write and test; what is said at the end is for the runner to merge."""
        compiling = _Clock()
        compiled = self._compile()
        for statement in compiled.statements:
            self._claim_files(statement)
        if self._has_no_new_files():
            self._parent.log("there are no new files: nothing is written")
            return self._worked(None, [])
        tables = {table for statement in compiled.statements for table in statement.tables_named}
        compiling.pause()
        self._locate({self._pipeline, *tables})
        compiling.resume()
        bound = self._bind(compiled.statement)
        self._note_tables(compiled.statement)
        self._say_phase("compile", compiling, tables=len(compiled.statement.tables_named), files=self._files_read)
        hooks.call("before_write", self._hook_run(compiled.config), bound.sql)
        written = self._write(compiled, bound)
        return self._worked(written, self._test(compiled))

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

    def _compile(self) -> Compiled:
        order = self._order
        compiled = compile_pipeline(
            self._connection,
            order.files,
            lambda config: Facts(
                run_id=order.run_id,
                run_started_at=order.started_at,
                pipeline=self._pipeline,
                strategy=config.merge_strategy,
                is_incremental=lambda: is_incremental(config.merge_strategy) and self._is_there(),
                watermark_column=config.watermark_column,
                watermark=lambda: self._watermark(config),
                parameters=order.parameters,
            ),
        )
        config = compiled.config
        memory_limit = config.memory_limit or self._workplace.memory_limit_bytes
        self._parent.say(
            Configured(
                timeout_seconds=config.timeout_seconds,
                max_retries=config.max_retries,
                retry_delay_seconds=config.retry_delay_seconds,
                memory_limit_bytes=memory_limit,
            )
        )
        limit_memory(self._connection, memory_limit)
        return compiled

    def _is_there(self) -> bool:
        """Whether the pipeline has a table already."""
        return self._location_of(self._pipeline) is not None

    def _watermark(self, config: Config) -> Sql | None:
        """The greatest value of the watermark column in the pipeline's table."""
        location = self._location_of(self._pipeline)
        if location is None or config.watermark_column is None:
            return None
        try:
            return watermark(self._connection, location, config.watermark_column)
        except LookupError as error:
            raise AuthorError(config.problem("watermark_column", str(error))) from error

    def _claim_files(self, statement: Statement) -> None:
        for use in statement.zones:
            call = use.call
            place = (call.namespace, call.zone, call.form)
            if place in self._zones:
                continue
            question = AskFiles(namespace=call.namespace, zone=call.zone, form=call.form)
            answer = self._parent.ask(question, ZoneFiles)
            if not answer.is_there:
                name = f"{call.namespace}/{call.zone}"
                message = f"there is no landing zone {name!r}{self._meant('landing_zone', name)}"
                raise AuthorError(statement.problem(message, use.start))
            self._zones[place] = ZoneContent(answer.files, answer.expected_schema, answer.last_file)
            self.inputs.append(
                Input(
                    type="landing_zone",
                    name=f"{call.namespace}/{call.zone}",
                    files=len(answer.files),
                    sample_files=[file.filename for file in answer.files[:20]],
                )
            )
            self._parent.log(f"landing zone {call.namespace}/{call.zone} ({call.form}): {len(answer.files)} files")

    def _has_no_new_files(self) -> bool:
        new = [content for (_, _, form), content in self._zones.items() if form is ZoneForm.NEW]
        return bool(new) and not any(content.files for content in new)

    def _bind(self, statement: Statement) -> Bound:
        """A query with everything in its place."""
        locations = {table: self._location_of(table) for table in statement.tables_named}
        missing = [use for use in statement.tables if locations[use.table] is None]
        if missing:
            raise AuthorError(*(statement.problem(self._about_missing(use.table), use.start) for use in missing))
        relations = {table: f"iceberg_scan('{place}')" for table, place in locations.items() if place is not None}
        zones = {use.call.placeholder: self._content_of(use.call) for use in statement.zones}
        return bind(statement, relations, zones, self._workplace.bucket)

    def _about_missing(self, table: Qualified) -> str:
        if table == self._pipeline:
            return (
                f"the pipeline's own table {str(table)!r} is not there before its first run:"
                " write what reads it inside {% if is_incremental() %} … {% endif %}"
            )
        return f"there is no table {str(table)!r}{self._meant('table', str(table))}"

    def _meant(self, kind: Literal["table", "landing_zone"], name: str) -> str:
        similar = self._parent.ask(AskSimilar(kind=kind, name=name), Similar).name
        return "" if similar is None else f", did you mean {similar!r}?"

    def _content_of(self, call: ZoneCall) -> ZoneContent:
        return self._zones[call.namespace, call.zone, call.form]

    def _location_of(self, table: Qualified) -> str | None:
        self._locate({table})
        return self._locations[table]

    def _locate(self, tables: set[Qualified]) -> None:
        unknown = sorted(str(table) for table in tables - self._locations.keys())
        if not unknown:
            return
        answer = self._parent.ask(AskLocations(tables=unknown), Locations)
        self._locations |= {Qualified.parse(name): location for name, location in answer.locations.items()}

    def _note_tables(self, statement: Statement) -> None:
        self.inputs += [Input(type="table", name=str(table)) for table in statement.tables_named]

    def _write(self, compiled: Compiled, bound: Bound) -> Written:
        writing = _Clock()
        catalog = self._workplace.catalog_of(self._order.branch)
        target = Target(catalog, self._pipeline, self._order.pipeline_id, self._order.run_id)
        written = write(self._connection, bound, target, compiled.config, self._order.started_at)
        self._locations[self._pipeline] = written.location
        rows = WrittenRows(written.rows, written.files, written.bytes, written.location)
        hooks.call("after_write", self._hook_run(compiled.config), rows)
        self._say_phase("write", writing, rows=written.rows, files=written.files, bytes=written.bytes)
        return written

    def _test(self, compiled: Compiled) -> list[QualityResult]:
        if not compiled.tests:
            hooks.call("after_tests", self._hook_run(compiled.config), [])
            return []
        testing = _Clock()
        tests = [self._ready(test) for test in compiled.tests]
        results = run_tests(self._connection, tests, threads=self._workplace.threads)
        hooks.call("after_tests", self._hook_run(compiled.config), results)
        self._say_phase("quality", testing, tests=len(results))
        return results

    def _ready(self, test: CompiledTest) -> QualityTest:
        if test.statement is None:
            return QualityTest(test.name, test.header, "; ".join(str(problem) for problem in test.problems))
        try:
            return QualityTest(test.name, test.header, self._bind(test.statement))
        except AuthorError as error:
            return QualityTest(test.name, test.header, str(error))

    @property
    def _files_read(self) -> int:
        return sum(len(content.files) for content in self._zones.values())

    def _worked(self, written: Written | None, results: list[QualityResult]) -> Worked:
        return Worked(
            has_written=written is not None and written.has_changed,
            rows_written=written.rows if written is not None else 0,
            files_read=self._files_read,
            inputs=self.inputs,
            quality=results,
        )

    def _say_phase(self, name: PhaseName, clock: "_Clock", **metadata: int) -> None:
        self._parent.say(PhaseDone(phase=Phase(name=name, duration_ms=clock.milliseconds(), metadata=metadata)))


class _Clock:
    """How long a phase takes, without what it waits for."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since = perf_counter()

    def pause(self) -> None:
        self._spent += perf_counter() - self._since

    def resume(self) -> None:
        self._since = perf_counter()

    def milliseconds(self) -> float:
        """Since it was made, but for its pauses."""
        return round((self._spent + perf_counter() - self._since) * 1000, 3)
