"""What is wrong with the files of a pipeline, file by file, without running any of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

import duckdb

from contracts.landing import ZoneForm
from contracts.names import PipelineName, Qualified
from contracts.pipelines import CheckedFile, CheckedTest, FileProblem, FoundReference, Validation, ZoneReference
from services.runner.compile import code_files, compile_code, is_known, main_file, test_files, test_name
from services.runner.config import (
    CONFIG_FILE,
    Config,
    Materialized,
    Strategy,
    misplaced_annotations,
    plugin_of,
    read_config,
    read_test_header,
    unknown_columns,
)
from services.runner.engine.naming import in_full
from services.runner.engine.statement import Statement, parse
from services.runner.engine.views import view_problems
from services.runner.languages import SQL_FILE
from services.runner.problems import AuthorError, Problem, Unsure
from services.runner.python.source import NamedZone, Source
from services.runner.template import Facts, Rendered, Sql, render
from shared.similar import did_you_mean

_LONGEST_QUERY: Final = 100_000
"""Characters beyond which a query is not told: an answer has to fit into a message."""


@dataclass
class _Found:
    """What was found in the files."""

    statements: dict[str, list[Statement]] = field(default_factory=dict)
    """Path → what it says in a first run, and in a later one."""
    source: Source | None = None
    """What a pipeline in Python says."""
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def validate(connection: duckdb.DuckDBPyConnection, pipeline: PipelineName, files: Mapping[str, str]) -> Validation:
    """Read every file as a run would: settings, Jinja, SQL and tests; tables and files are not looked for."""
    name = Qualified.parse(pipeline)
    found = _Found()
    codes = [path for path in code_files() if path in files]
    main = codes[0] if codes else SQL_FILE
    config, found.errors = read_config(files, main)
    tests = test_files(files)
    try:
        main_file(files)
    except AuthorError as error:
        found.errors += error.problems
    headers = {path: read_test_header(path, files[path]) for path in tests}
    found.errors += [problem for _, problems in headers.values() for problem in problems]
    worlds = _worlds(name, config)
    for path in codes:
        _read(path, files[path], partial(compile_code, connection, path, files[path]), worlds, found)
    for path in tests:
        _read(path, files[path], partial(_query, connection, path, files[path]), worlds, found)
    query = found.statements.get(main, [])
    _judge(connection, name, files, config, query, found)
    paths = dict.fromkeys([*sorted(files), *(problem.path for problem in found.errors)])
    return Validation(
        valid=not found.errors,
        files=[_checked(path, found) for path in paths],
        reads_tables=list(dict.fromkeys(str(one) for one in _tables(query, found.source) if one != name)),
        reads_zones=list({str(zone): zone for zone in _zones(query, found.source)}.values()),
        references=list({str(one): one for one in _references(found, name)}.values()),
        archives_files=config.archive_landing_zones,
        description=config.description,
        tests=[
            CheckedTest(
                name=test_name(path),
                path=path,
                severity=header.severity,
                description=header.description,
                tags=list(header.tags),
                remediation=header.remediation,
            )
            for path, (header, _) in headers.items()
        ],
        query_sql=_told(query),
    )


def _worlds(pipeline: Qualified, config: Config) -> list[Facts]:
    """What templates meet in the first run, and in a later one if that is another world."""
    first = Facts(
        run_id=UUID(int=0),
        run_started_at=datetime(2000, 1, 1, tzinfo=UTC),
        pipeline=pipeline,
        strategy=config.merge_strategy,
        is_incremental=lambda: False,
        watermark_column=config.watermark_column,
        is_rehearsal=True,
    )
    keeps = plugin_of(config.merge_strategy).is_incremental
    later = replace(first, is_incremental=lambda: keeps, watermark=lambda: Sql("null"))
    return [first, later] if keeps or config.watermark_column is not None else [first]


def _query(connection: duckdb.DuckDBPyConnection, path: str, text: str, facts: Facts) -> Statement:
    return parse(connection, render(path, text, facts))


def _read(
    path: str, text: str, compiled: Callable[[Facts], Statement | Source], worlds: list[Facts], found: _Found
) -> None:
    """Compile a file for each world, as far as that makes a difference."""
    errors: list[Problem] = []
    warnings = misplaced_annotations(path, text)
    for facts in worlds:
        try:
            code = compiled(facts)
        except Unsure as error:
            warnings += [*error.problems, *_about_parameters(path, error.parameters)]
            continue
        except AuthorError as error:
            errors += error.problems
            continue
        if isinstance(code, Source):
            found.source = code
            break
        found.statements.setdefault(path, []).append(code)
        warnings += _about_names(code.rendered)
    found.errors += dict.fromkeys(errors)
    found.warnings += dict.fromkeys(warnings)


def _about_names(rendered: Rendered) -> Iterator[Problem]:
    yield from _about_parameters(rendered.path, rendered.missing_parameters)
    if "watermark_value" in rendered.names and rendered.facts.watermark_column is None:
        yield Problem(rendered.path, "watermark_value is always false here: the pipeline sets no watermark_column")


def _about_parameters(path: str, parameters: tuple[str, ...]) -> Iterator[Problem]:
    for name in parameters:
        yield Problem(path, f"var({name!r}) has no default: a run without this parameter fails")


def _judge(
    connection: duckdb.DuckDBPyConnection,
    pipeline: Qualified,
    files: Mapping[str, str],
    config: Config,
    query: list[Statement],
    found: _Found,
) -> None:
    """What is wrong, or odd, about files that can be read."""
    known = [*code_files(), CONFIG_FILE]
    found.warnings += [
        Problem(path, f"no run reads this file{did_you_mean(path, known)}")
        for path in sorted(files)
        if not is_known(path)
    ]
    if config.materialized is Materialized.VIEW:
        codes = [found.source] if found.source is not None else query
        unfit = [problem for code in codes for problem in view_problems(connection, code, pipeline)]
        found.errors += dict.fromkeys(unfit)
    for columns in {statement.columns_given for statement in query} - {None}:
        found.errors += unknown_columns(config, columns or ())
    if config.merge_strategy != Strategy.FULL_REFRESH:
        return
    message = "full_refresh keeps the last batch only: {what}; use append_only to keep what was read before"
    new = [
        statement.problem("", use.start)
        for statement in query
        for use in statement.zones
        if use.call.form is ZoneForm.NEW
    ]
    if found.source is not None:
        new += [found.source.places[zone] for zone in found.source.zones if zone.form is ZoneForm.NEW]
    if new:
        what = "landing_zone(…, only='new') gives each file once"
        found.warnings.append(replace(new[0], message=message.format(what=what)))
    elif config.archive_landing_zones and any(_zones(query, found.source)):
        what = "archive_landing_zones takes files out of the zone once they are read"
        found.warnings.append(config.problem("archive_landing_zones", message.format(what=what)))


def _told(query: list[Statement]) -> str | None:
    """What the pipeline's file says in a later run."""
    sql = in_full(query[-1]) if query else None
    return sql if sql is not None and len(sql) <= _LONGEST_QUERY else None


def _tables(query: list[Statement], source: Source | None) -> Iterator[Qualified]:
    for statement in query:
        yield from statement.tables_named
    if source is not None:
        yield from source.tables


def _zones(query: list[Statement], source: Source | None) -> Iterator[ZoneReference]:
    called = [(call.namespace, call.zone, call.form) for statement in query for call in statement.zones_asked]
    named = [] if source is None else [(zone.namespace, zone.zone, zone.form) for zone in source.zones]
    for namespace, zone, form in (*called, *named):
        yield ZoneReference(namespace=namespace, zone=zone, only_new=form is ZoneForm.NEW)


def _references(found: _Found, pipeline: Qualified) -> Iterator[FoundReference]:
    """Where the files name other tables, and landing zones; of each name the first place in a file."""
    for statements in found.statements.values():
        places: dict[tuple[str, str], Problem] = {}
        for statement in statements:
            for table in statement.tables:
                if table.table != pipeline:
                    places.setdefault(("table", str(table.table)), statement.problem("", table.start))
            for zone in statement.zones:
                name = f"{zone.call.namespace}/{zone.call.zone}"
                places.setdefault(("landing_zone", name), statement.problem("", zone.start))
        for (kind, name), place in places.items():
            yield _reference(kind, name, place)
    for named, place in found.source.places.items() if found.source is not None else ():
        if isinstance(named, NamedZone):
            yield _reference("landing_zone", f"{named.namespace}/{named.zone}", place)
        elif named != pipeline:
            yield _reference("table", str(named), place)


def _reference(kind: str, name: str, place: Problem) -> FoundReference:
    return FoundReference.model_validate(
        {"type": kind, "name": name, "path": place.path, "line": place.line, "column": place.column}
    )


def _checked(path: str, found: _Found) -> CheckedFile:
    errors = _of(path, found.errors)
    return CheckedFile(path=path, valid=not errors, errors=errors, warnings=_of(path, found.warnings))


def _of(path: str, problems: list[Problem]) -> list[FileProblem]:
    return [problem.in_file() for problem in problems if problem.path == path]
