"""The work on one attempt inside its process: compile, write, test."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import BinaryIO, Literal, TypeAlias, TypeVar

import duckdb

from contracts.landing import ClaimedFile, ZoneForm
from contracts.messages import Message, utc_now
from contracts.names import Qualified
from contracts.reports import Input, QualityResult
from contracts.runs import LogLine, Phase
from services.runner.compile import Compiled, CompiledTest, compile_pipeline
from services.runner.engine.binding import Bound, Query, ZoneContent, bind
from services.runner.engine.quality import QualityTest, run_tests
from services.runner.engine.session import limit_memory
from services.runner.engine.statement import Statement
from services.runner.engine.write import Written, write
from services.runner.frames import (
    AskFiles,
    AskLocations,
    Configured,
    Locations,
    Logged,
    PhaseDone,
    ToProcess,
    Worked,
    WorkOrder,
    ZoneFiles,
    frame,
    read_in_process,
)
from services.runner.problems import AuthorError, WorkFailed
from services.runner.python.rows import rows_of
from services.runner.python.source import NamedZone, Source
from services.runner.target import Target
from services.runner.template import Facts, ZoneCall
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

    def log(self, message: str, level: Literal["info", "warning", "error"] = "info") -> None:
        """Write a line into the run's log."""
        self.say(Logged(line=LogLine(timestamp=utc_now(), level=level, message=message)))

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
    connection_for_code: Callable[[int], duckdb.DuckDBPyConnection]
    """Opens a database for an author's Python that may hold so many bytes in memory."""
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
        if isinstance(compiled.code, Source):
            self._say_phase("compile", compiling)
            return self._run_code(compiled, compiled.code)
        if self._has_no_new_files():
            return self._nothing_new()
        tables = {table for statement in compiled.statements for table in statement.tables_named}
        compiling.pause()
        self._locate({self._pipeline, *tables})
        compiling.resume()
        bound = self._bind(compiled.code)
        self._note_tables(compiled.code)
        self._say_phase("compile", compiling, tables=len(compiled.code.tables_named), files=self._files_read)
        written = self._write(self._connection, compiled, bound, _Clock())
        return self._worked(written, self._test(compiled))

    def _run_code(self, compiled: Compiled, source: Source) -> Worked:
        """Run a pipeline's Python, and write and test what it gives."""
        writing = _Clock()
        config = compiled.config
        asked = _AskedByCode(self)
        connection = self._workplace.connection_for_code(config.memory_limit or self._workplace.memory_limit_bytes)
        try:
            with rows_of(
                source,
                connection,
                facts=compiled.facts,
                config=config,
                asked=asked,
                bucket=self._workplace.bucket,
                tell=self._parent.log,
            ) as rows:
                written = None if self._has_no_new_files() else self._write(rows.connection, compiled, rows, writing)
        except WorkFailed as error:
            if not (self._has_no_new_files() and asked.has_asked_all(source)):
                raise
            self._parent.log(error.message, "warning")
            written = None
        if written is None:
            return self._nothing_new()
        return self._worked(written, self._test(compiled))

    def _nothing_new(self) -> Worked:
        self._parent.log("there are no new files: nothing is written")
        return self._worked(None, [])

    def _compile(self) -> Compiled:
        order = self._order
        compiled = compile_pipeline(
            self._connection,
            order.files,
            lambda strategy: Facts(
                run_id=order.run_id,
                run_started_at=order.started_at,
                pipeline=self._pipeline,
                strategy=strategy,
                is_incremental=lambda: strategy.is_incremental and self.location_of(self._pipeline) is not None,
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

    def _claim_files(self, statement: Statement) -> None:
        for use in statement.zones:
            call = use.call
            if self.content_of(call.namespace, call.zone, call.form) is None:
                message = f"there is no landing zone '{call.namespace}/{call.zone}'"
                raise AuthorError(statement.problem(message, use.start))

    def content_of(self, namespace: str, zone: str, form: ZoneForm) -> ZoneContent | None:
        """What the run reads of a landing zone; None if there is no such zone."""
        place = (namespace, zone, form)
        if place in self._zones:
            return self._zones[place]
        answer = self._parent.ask(AskFiles(namespace=namespace, zone=zone, form=form), ZoneFiles)
        if not answer.is_there:
            return None
        self._zones[place] = ZoneContent(answer.files, answer.expected_schema, answer.last_file)
        self.inputs.append(
            Input(
                type="landing_zone",
                name=f"{namespace}/{zone}",
                files=len(answer.files),
                sample_files=[file.filename for file in answer.files[:20]],
            )
        )
        self._parent.log(f"landing zone {namespace}/{zone} ({form}): {len(answer.files)} files")
        return self._zones[place]

    def _has_no_new_files(self) -> bool:
        new = [content for (_, _, form), content in self._zones.items() if form is ZoneForm.NEW]
        return bool(new) and not any(content.files for content in new)

    def _bind(self, statement: Statement) -> Bound:
        """A query with everything in its place."""
        locations = {table: self.location_of(table) for table in statement.tables_named}
        relations = {table: f"iceberg_scan('{place}')" for table, place in locations.items() if place is not None}
        zones = {use.call.placeholder: self._content_of(use.call) for use in statement.zones}
        return bind(statement, relations, zones, self._workplace.bucket)

    def _content_of(self, call: ZoneCall) -> ZoneContent:
        return self._zones[call.namespace, call.zone, call.form]

    def location_of(self, table: Qualified) -> str | None:
        """Where the metadata of a table is; None if there is no such table."""
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

    def _write(
        self, connection: duckdb.DuckDBPyConnection, compiled: Compiled, query: Query, writing: "_Clock"
    ) -> Written:
        catalog = self._workplace.catalog_of(self._order.branch)
        target = Target(catalog, self._pipeline, self._order.pipeline_id, self._order.run_id)
        written = write(connection, query, target, compiled.config.merge_strategy)
        self._locations[self._pipeline] = written.location
        self._parent.log(f"{compiled.config.merge_strategy}: {written.rows} rows in {written.files} files")
        self._say_phase("write", writing, rows=written.rows, files=written.files, bytes=written.bytes)
        return written

    def _test(self, compiled: Compiled) -> list[QualityResult]:
        if not compiled.tests:
            return []
        testing = _Clock()
        tests = [self._ready(test) for test in compiled.tests]
        results = run_tests(self._connection, tests, threads=self._workplace.threads)
        for result in results:
            found = "" if result.value is None else f", {result.value} rows"
            self._parent.log(
                f"test {result.name}: {result.status}{found}{': ' if result.message else ''}{result.message or ''}"
            )
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


class _AskedByCode:
    """What an author's Python asks for, while it runs."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._zones: set[NamedZone] = set()

    def location_of(self, table: Qualified) -> str | None:
        return self._work.location_of(table)

    def note_table(self, table: Qualified) -> None:
        named = Input(type="table", name=str(table))
        if named not in self._work.inputs:
            self._work.inputs.append(named)

    def files_of(self, namespace: str, zone: str, form: ZoneForm) -> list[ClaimedFile] | None:
        self._zones.add(NamedZone(namespace, zone, form))
        content = self._work.content_of(namespace, zone, form)
        return None if content is None else list(content.files)

    def has_asked_all(self, source: Source) -> bool:
        """Whether no zone is left that the code has named and not come to ask for."""
        return source.names_all_zones and self._zones.issuperset(source.zones)


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
