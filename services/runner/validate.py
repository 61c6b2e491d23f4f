"""What is wrong with the files of a pipeline, file by file, without running any of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import duckdb

from contracts.landing import ZoneForm
from contracts.names import PipelineName, Qualified
from contracts.pipelines import CheckedFile, CheckedTest, FileProblem, Validation, ZoneReference
from services.runner.compile import PIPELINE_FILE, CompiledTest, compile_test, is_known, test_files
from services.runner.config import CONFIG_FILE, Config, Materialized, Strategy, read_config
from services.runner.engine.statement import Statement, parse
from services.runner.engine.views import view_problems
from services.runner.problems import AuthorError, Problem
from services.runner.template import Facts, render


def validate(connection: duckdb.DuckDBPyConnection, pipeline: PipelineName, files: Mapping[str, str]) -> Validation:
    """Read every file as a run would: settings, Jinja, SQL and tests; tables and files are not looked for."""
    name = Qualified.parse(pipeline)
    config, problems = read_config(files, PIPELINE_FILE)
    facts = _facts(name, config.merge_strategy)
    statement: Statement | None = None
    if PIPELINE_FILE in files:
        try:
            statement = parse(connection, render(PIPELINE_FILE, files[PIPELINE_FILE], facts))
            if config.materialized is Materialized.VIEW:
                problems += view_problems(connection, statement, name)
        except AuthorError as error:
            problems += error.problems
    else:
        problems.append(Problem(PIPELINE_FILE, f"the pipeline has no {PIPELINE_FILE}"))
    tests = [compile_test(connection, path, files[path], facts) for path in test_files(files)]
    problems += [problem for test in tests for problem in test.problems]
    warnings = _warnings(files, config, statement)
    paths = dict.fromkeys([*sorted(files), *(problem.path for problem in problems)])
    return Validation(
        valid=not problems,
        files=[_checked(path, problems, warnings) for path in paths],
        reads_tables=[str(table) for table in statement.tables_named if table != name] if statement else [],
        reads_zones=_zones(statement) if statement else [],
        archives_files=config.archive_landing_zones,
        description=config.description,
        tests=[_test(test) for test in tests],
    )


def _facts(pipeline: Qualified, strategy: Strategy) -> Facts:
    return Facts(
        run_id=UUID(int=0),
        run_started_at=datetime(2000, 1, 1, tzinfo=UTC),
        pipeline=pipeline,
        strategy=strategy,
        is_incremental=lambda: False,
    )


def _warnings(files: Mapping[str, str], config: Config, statement: Statement | None) -> list[Problem]:
    warnings = [Problem(path, "no run reads this file") for path in sorted(files) if not is_known(path)]
    if statement is None or config.merge_strategy is not Strategy.FULL_REFRESH:
        return warnings
    message = "full_refresh keeps the last batch only: {what}; use append_only to keep what was read before"
    if any(call.form is ZoneForm.NEW for call in statement.zones_asked):
        what = "landing_zone(…, only='new') gives each file once"
        warnings.append(Problem(PIPELINE_FILE, message.format(what=what)))
    elif config.archive_landing_zones and statement.zones_asked:
        what = "archive_landing_zones takes files out of the zone once they are read"
        path = CONFIG_FILE if CONFIG_FILE in files else PIPELINE_FILE
        warnings.append(Problem(path, message.format(what=what)))
    return warnings


def _zones(statement: Statement) -> list[ZoneReference]:
    return [
        ZoneReference(namespace=call.namespace, zone=call.zone, only_new=call.form is ZoneForm.NEW)
        for call in statement.zones_asked
    ]


def _checked(path: str, problems: list[Problem], warnings: list[Problem]) -> CheckedFile:
    errors = _of(path, problems)
    return CheckedFile(path=path, valid=not errors, errors=errors, warnings=_of(path, warnings))


def _of(path: str, problems: list[Problem]) -> list[FileProblem]:
    return [problem.in_file() for problem in problems if problem.path == path]


def _test(test: CompiledTest) -> CheckedTest:
    header = test.header
    return CheckedTest(
        name=test.name,
        path=test.path,
        severity=header.severity,
        description=header.description,
        tags=list(header.tags),
        remediation=header.remediation,
    )
