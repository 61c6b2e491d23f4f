"""What the code of a pipeline reads: its tables and files are asked of the runner, and stand in the queries then."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

from contracts.landing import ZoneForm
from contracts.names import Qualified
from contracts.reports import Input
from services.runner.compile import (
    Compiled,
    CompiledTest,
    code_files,
    compile_pipeline,
    compile_test,
    test_files,
)
from services.runner.config import Config, misplaced_annotations, plugin_of, read_config
from services.runner.engine.binding import Bound, ZoneContent, bind
from services.runner.engine.present import has_snapshot, watermark
from services.runner.engine.quality import QualityTest
from services.runner.engine.session import limit_memory
from services.runner.engine.statement import Statement
from services.runner.frames import AskFiles, AskLocations, AskSimilar, Configured, Locations, Similar, ZoneFiles
from services.runner.languages import SQL_FILE
from services.runner.problems import AuthorError
from services.runner.relations import Relations
from services.runner.template import Facts, Sql, ZoneCall
from services.runner.workplace import Workplace


class Reading:
    """A pipeline's code on its way to queries that DuckDB runs; what was asked once is not asked again."""

    def __init__(self, workplace: Workplace, pipeline: Qualified) -> None:
        self._workplace = workplace
        self._parent = workplace.parent
        self.pipeline = pipeline
        self.relations = Relations(workplace.connection, self._ask_for)
        self.inputs: list[Input] = []
        self._zones: dict[tuple[str, str, ZoneForm], ZoneContent] = {}

    def compile(
        self, files: Mapping[str, str], *, run_id: UUID, started_at: datetime, parameters: Mapping[str, Any]
    ) -> Compiled:
        """Compile the files, and tell the runner what their author allows the run."""

        def facts(config: Config) -> Facts:
            # Before anything is rendered, which may go on without end.
            self._allow(config)
            return self._facts(config, run_id, started_at, parameters)

        compiled = compile_pipeline(self._workplace.connection, files, facts)
        for path in (*code_files(), *test_files(files)):
            for problem in misplaced_annotations(path, files.get(path, "")):
                self._parent.log(str(problem), "warning")
        return compiled

    def _allow(self, config: Config) -> None:
        memory_limit = config.memory_limit or self._workplace.memory_limit_bytes
        self._parent.say(
            Configured(
                timeout_seconds=config.timeout_seconds,
                max_retries=config.max_retries,
                retry_delay_seconds=config.retry_delay_seconds,
                memory_limit_bytes=memory_limit,
            )
        )
        limit_memory(self._workplace.connection, memory_limit)

    def compile_tests(self, files: Mapping[str, str], *, run_id: UUID, started_at: datetime) -> list[CompiledTest]:
        """Compile the tests among the files, whatever the pipeline itself is like."""
        main = next((path for path in code_files() if path in files), SQL_FILE)
        config, _ = read_config(files, main)
        facts = self._facts(config, run_id, started_at, {})
        return [compile_test(self._workplace.connection, path, files[path], facts) for path in test_files(files)]

    def _facts(self, config: Config, run_id: UUID, started_at: datetime, parameters: Mapping[str, Any]) -> Facts:
        return Facts(
            run_id=run_id,
            run_started_at=started_at,
            pipeline=self.pipeline,
            strategy=config.merge_strategy,
            is_incremental=lambda: plugin_of(config.merge_strategy).is_incremental and self._has_snapshot,
            watermark_column=config.watermark_column,
            watermark=lambda: self._watermark(config),
            parameters=parameters,
        )

    @cached_property
    def _has_snapshot(self) -> bool:
        """Whether the pipeline's table was written before."""
        location = self.relations.location_of(self.pipeline)
        return location is not None and has_snapshot(self._workplace.connection, location)

    def _watermark(self, config: Config) -> Sql | None:
        """The greatest value of the watermark column in the pipeline's table."""
        location = self.relations.location_of(self.pipeline)
        if location is None or config.watermark_column is None:
            return None
        try:
            return watermark(self._workplace.connection, location, config.watermark_column)
        except LookupError as error:
            raise AuthorError(config.problem("watermark_column", str(error))) from error

    def claim_files(self, statement: Statement) -> None:
        """Ask for the files of the zones that a statement reads; `AuthorError` for a zone that does not exist."""
        for use in statement.zones:
            call = use.call
            if self.content_of(call.namespace, call.zone, call.form) is None:
                name = f"{call.namespace}/{call.zone}"
                message = f"there is no landing zone {name!r}{self.meant('landing_zone', name)}"
                raise AuthorError(statement.problem(message, use.start))

    def with_files(self, test: CompiledTest) -> CompiledTest:
        """A test whose files are asked for, or with what is wrong with the zones that it reads."""
        try:
            if test.statement is not None:
                self.claim_files(test.statement)
        except AuthorError as error:
            return replace(test, statement=None, problems=error.problems)
        return test

    def content_of(self, namespace: str, zone: str, form: ZoneForm) -> ZoneContent | None:
        """What is read of a landing zone; None if there is no such zone."""
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

    @property
    def has_no_new_files(self) -> bool:
        """Whether `only='new'` was asked for, and nothing is new."""
        new = [content for (_, _, form), content in self._zones.items() if form is ZoneForm.NEW]
        return bool(new) and not any(content.files for content in new)

    @property
    def files_read(self) -> int:
        """How many files of zones there are to read."""
        return sum(len(content.files) for content in self._zones.values())

    def bind(self, statement: Statement) -> Bound:
        """A query with everything in its place."""
        relations = self.relations.of(statement)
        missing = [use for use in statement.tables if use.table not in relations]
        if missing:
            raise AuthorError(*(statement.problem(self._about_missing(use.table), use.start) for use in missing))
        zones = {use.call.placeholder: self._content_of(use.call) for use in statement.zones}
        return bind(statement, relations, zones, self._workplace.bucket, self._workplace.sniffed.call)

    def _about_missing(self, table: Qualified) -> str:
        if table == self.pipeline:
            return (
                f"the pipeline's own table {str(table)!r} is not there before its first run:"
                " write what reads it inside {% if is_incremental() %} … {% endif %}"
            )
        return f"there is no table {str(table)!r}{self.meant('table', str(table))}"

    def meant(self, kind: Literal["table", "landing_zone"], name: str) -> str:
        """What may have been meant by a name that there is not, as the end of a message."""
        similar = self._parent.ask(AskSimilar(kind=kind, name=name), Similar).name
        return "" if similar is None else f", did you mean {similar!r}?"

    def ready(self, test: CompiledTest) -> QualityTest:
        """A test with everything in its place, or with what is wrong with it."""
        if test.statement is None:
            return QualityTest(test.name, test.header, "; ".join(str(problem) for problem in test.problems))
        try:
            return QualityTest(test.name, test.header, self.bind(test.statement))
        except AuthorError as error:
            return QualityTest(test.name, test.header, str(error))

    def _ask_for(self, names: list[str]) -> Locations:
        return self._parent.ask(AskLocations(tables=names), Locations)

    def note_tables(self, tables: Iterable[Qualified]) -> None:
        """Note tables as what the run reads."""
        named = [Input(type="table", name=str(table)) for table in tables]
        self.inputs += [one for one in named if one not in self.inputs]

    def _content_of(self, call: ZoneCall) -> ZoneContent:
        return self._zones[call.namespace, call.zone, call.form]
