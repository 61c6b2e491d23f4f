"""The languages that pipelines are written in: entry points of group `rat.pipeline_types`."""

import duckdb

from services.runner.engine.statement import Statement, parse
from services.runner.python.source import PYTHON_FILE, Source, parse_source
from services.runner.template import Facts, render

SQL_FILE = "pipeline.sql"


class SqlPipeline:
    """A query, with Jinja."""

    file = SQL_FILE

    def compile(self, connection: duckdb.DuckDBPyConnection, text: str, facts: Facts) -> Statement:
        """Render and parse the query."""
        return parse(connection, render(self.file, text, facts))


class PythonPipeline:
    """A script, or a function of the run's context."""

    file = PYTHON_FILE

    def compile(self, connection: duckdb.DuckDBPyConnection, text: str, facts: Facts) -> Source:
        """Compile the code, without running any of it."""
        return parse_source(text, facts.pipeline.namespace)
