"""The files of a pipeline, compiled: its settings, its query, and its tests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

from services.runner.config import (
    CONFIG_FILE,
    PYTHON_SIGN,
    SQL_SIGN,
    Config,
    QualityHeader,
    read_config,
    read_test_header,
)
from services.runner.engine.statement import Statement, parse
from services.runner.problems import AuthorError, Problem
from services.runner.python.source import PYTHON_FILE, Source, parse_source
from services.runner.template import Facts, render

PIPELINE_FILE: Final = "pipeline.sql"
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
    config, problems = read_config(files, main, sign_of(main))
    if problems:
        raise AuthorError(*problems)
    facts = facts_of(config)
    code = compile_code(connection, main, files[main], facts)
    tests = tuple(compile_test(connection, path, files[path], facts) for path in test_files(files))
    return Compiled(config, facts, code, tests)


def main_file(files: Mapping[str, str]) -> str:
    """The path of the file that holds the pipeline's code; `AuthorError` if there is none, or more than one."""
    found = [path for path in (PIPELINE_FILE, PYTHON_FILE) if path in files]
    match found:
        case [path]:
            return path
        case []:
            raise AuthorError(Problem(PIPELINE_FILE, f"the pipeline has neither {PIPELINE_FILE} nor {PYTHON_FILE}"))
        case _:
            message = f"the pipeline has both {PIPELINE_FILE} and {PYTHON_FILE}; it is one of them"
            raise AuthorError(Problem(PYTHON_FILE, message))


def sign_of(path: str) -> str:
    """What comments begin with in a file that holds a pipeline's code."""
    return PYTHON_SIGN if path == PYTHON_FILE else SQL_SIGN


def compile_code(connection: duckdb.DuckDBPyConnection, path: str, text: str, facts: Facts) -> Statement | Source:
    """Compile the pipeline's own file; `AuthorError` says what is wrong with it."""
    if path == PYTHON_FILE:
        return parse_source(text, facts.pipeline.namespace)
    return parse(connection, render(path, text, facts))


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
    return path in (PIPELINE_FILE, PYTHON_FILE, CONFIG_FILE) or (
        path.startswith(TESTS_FOLDER) and path.endswith(".sql")
    )
