"""The files of a pipeline, compiled: its settings, its query, and its tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

from services.runner.config import (
    CONFIG_FILE,
    Config,
    Materialized,
    QualityHeader,
    read_config,
    read_test_header,
)
from services.runner.engine.statement import Statement, parse
from services.runner.engine.views import view_problems
from services.runner.languages import SQL_FILE
from services.runner.plugins import pipeline_types
from services.runner.problems import AuthorError, Problem
from services.runner.python.source import Source
from services.runner.template import Facts, render

TESTS_FOLDER: Final = "tests/quality/"


@dataclass(frozen=True)
class CompiledTest:
    """A quality test; what is wrong with its file is its result when it is run."""

    name: str
    path: str
    header: QualityHeader
    statement: Statement | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """A pipeline that can be run once its tables and files are known."""

    config: Config
    facts: Facts
    code: Statement | Source
    tests: tuple[CompiledTest, ...]

    @property
    def is_view(self) -> bool:
        """Whether its query is kept, in place of its rows."""
        return self.config.materialized is Materialized.VIEW

    @property
    def statements(self) -> list[Statement]:
        """The pipeline's query, if it is one, and those of the tests that are one."""
        tests = [test.statement for test in self.tests if test.statement is not None]
        return [self.code, *tests] if isinstance(self.code, Statement) else tests


def compile_pipeline(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, str], facts_of: Callable[[Config], Facts]
) -> Compiled:
    """Compile a pipeline's files; `AuthorError` says what is wrong with its settings or its query.

    Nothing of it is run. `facts_of` gives the facts for templates once the settings are known.
    """
    main = main_file(files)
    config, problems = read_config(files, main)
    if problems:
        raise AuthorError(*problems)
    facts = facts_of(config)
    code = compile_code(connection, main, files[main], facts)
    if config.materialized is Materialized.VIEW and (unfit := view_problems(connection, code, facts.pipeline)):
        raise AuthorError(*unfit)
    tests = tuple(compile_test(connection, path, files[path], facts) for path in test_files(files))
    return Compiled(config, facts, code, tests)


def main_file(files: Mapping[str, str]) -> str:
    """The path of the file that holds the pipeline's code; `AuthorError` if there is none, or more than one."""
    known = code_files()
    match [path for path in known if path in files]:
        case [path]:
            return path
        case []:
            raise AuthorError(Problem(SQL_FILE, f"the pipeline has neither {' nor '.join(known)}"))
        case [first, *others]:
            message = f"the pipeline has both {first} and {others[0]}; it is one of them"
            raise AuthorError(Problem(others[0], message))
        case _:
            raise AssertionError("a list is empty, has one item, or more")


def code_files() -> list[str]:
    """The files that may hold a pipeline's code, that of SQL first."""
    files = [kind.file for kind in pipeline_types().usable.values()]
    return sorted(files, key=lambda file: (file != SQL_FILE, file))


def compile_code(connection: duckdb.DuckDBPyConnection, path: str, text: str, facts: Facts) -> Statement | Source:
    """Compile the pipeline's own file; `AuthorError` says what is wrong with it."""
    kind = next(kind for kind in pipeline_types().usable.values() if kind.file == path)
    return kind.compile(connection, text, facts)


def compile_test(connection: duckdb.DuckDBPyConnection, path: str, text: str, facts: Facts) -> CompiledTest:
    """Compile a quality test."""
    header, problems = read_test_header(path, text)
    statement = None
    try:
        statement = parse(connection, render(path, text, facts))
    except AuthorError as error:
        problems += error.problems
    return CompiledTest(test_name(path), path, header, None if problems else statement, tuple(problems))


def test_files(files: Mapping[str, str]) -> list[str]:
    """The paths of the quality tests among a pipeline's files, in order."""
    return sorted(path for path in files if path.startswith(TESTS_FOLDER) and path.endswith(".sql"))


def test_name(path: str) -> str:
    """The name of a quality test by its path."""
    return path.removeprefix(TESTS_FOLDER).removesuffix(".sql")


def is_known(path: str) -> bool:
    """Whether a file of this path means anything to a run."""
    return path in (*code_files(), CONFIG_FILE) or (path.startswith(TESTS_FOLDER) and path.endswith(".sql"))
