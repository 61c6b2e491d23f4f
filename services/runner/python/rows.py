"""The rows of a pipeline written in Python, for as long as they are read."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from services.runner.config import Config
from services.runner.python.context import Asked, Context
from services.runner.python.output import Tell, Told, heard
from services.runner.python.result import Given
from services.runner.python.running import errors_of_rows, run
from services.runner.python.source import Source
from services.runner.template import Facts


@contextmanager
def rows_of(
    source: Source,
    connection: duckdb.DuckDBPyConnection,
    *,
    facts: Facts,
    config: Config,
    asked: Asked,
    bucket: str,
    tell: Tell,
) -> Iterator[Given]:
    """Run the code and give its rows, to be read once in the block; all that the code says until then is told.

    `connection` is for this code only: what it leaves behind in it, and in the process, is not taken away. Raises
    `WorkFailed` for what the code raises, also while its rows are read.
    """
    with heard(Told(tell)) as log:
        authors = connection.cursor()
        authors.execute("set session errors_as_json = false")
        result = run(source, Context(authors, facts, config, asked, log, bucket), connection)
        with errors_of_rows(result):
            yield result
