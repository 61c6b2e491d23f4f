"""What is wrong with the files of a pipeline, file by file, without running any of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import duckdb

from contracts.landing import ZoneForm
from contracts.names import PipelineName, Qualified
from contracts.pipelines import CheckedFile, CheckedTest, FileProblem, Validation, ZoneReference
from services.runner.compile import (
    PIPELINE_FILE,
    CompiledTest,
    compile_code,
    compile_test,
    is_known,
    main_file,
    test_files,
)
from services.runner.config import CONFIG_FILE, Config, Strategy, read_config
from services.runner.engine.statement import Statement
from services.runner.problems import AuthorError, Problem
from services.runner.python.source import PYTHON_FILE, Source
from services.runner.template import Facts


def validate(connection: duckdb.DuckDBPyConnection, pipeline: PipelineName, files: Mapping[str, str]) -> Validation:
    """Read every file as a run would: settings, Jinja, SQL and tests; tables and files are not looked for."""
    name = Qualified.parse(pipeline)
    main = PYTHON_FILE if PYTHON_FILE in files and PIPELINE_FILE not in files else PIPELINE_FILE
    config, problems = read_config(files, main)
    facts = _facts(name, config.merge_strategy)
    code: Statement | Source | None = None
    try:
        code = compile_code(connection, main_file(files), files[main], facts)
    except AuthorError as error:
        problems += error.problems
    tests = [compile_test(connection, path, files[path], facts) for path in test_files(files)]
    problems += [problem for test in tests for problem in test.problems]
    warnings = _warnings(files, config, main, code)
    paths = dict.fromkeys([*sorted(files), *(problem.path for problem in problems)])
    return Validation(
        valid=not problems,
        files=[_checked(path, problems, warnings) for path in paths],
        reads_tables=[str(table) for table in _tables(code) if table != name],
        reads_zones=_zones(code),
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


def _warnings(files: Mapping[str, str], config: Config, main: str, code: Statement | Source | None) -> list[Problem]:
    warnings = [Problem(path, "no run reads this file") for path in sorted(files) if not is_known(path)]
    zones = _zones(code)
    if config.merge_strategy is not Strategy.FULL_REFRESH:
        return warnings
    message = "full_refresh keeps the last batch only: {what}; use append_only to keep what was read before"
    if any(zone.only_new for zone in zones):
        what = "landing_zone(…, only='new') gives each file once"
        warnings.append(Problem(main, message.format(what=what)))
    elif config.archive_landing_zones and zones:
        what = "archive_landing_zones takes files out of the zone once they are read"
        path = CONFIG_FILE if CONFIG_FILE in files else main
        warnings.append(Problem(path, message.format(what=what)))
    return warnings


def _tables(code: Statement | Source | None) -> list[Qualified]:
    match code:
        case Statement():
            return code.tables_named
        case Source():
            return list(code.tables)
        case None:
            return []


def _zones(code: Statement | Source | None) -> list[ZoneReference]:
    match code:
        case Statement():
            asked = [(call.namespace, call.zone, call.form) for call in code.zones_asked]
        case Source():
            asked = [(named.namespace, named.zone, named.form) for named in code.zones]
        case None:
            asked = []
    return [
        ZoneReference(namespace=namespace, zone=zone, only_new=form is ZoneForm.NEW) for namespace, zone, form in asked
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
