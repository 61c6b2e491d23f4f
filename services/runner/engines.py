"""The databases of a process, and its files of tables: all of them use the object store with the key of its run."""

from threading import Lock

import duckdb
from pydantic import SecretStr

from services.runner.engine.session import open_connection, open_connection_for_code
from services.runner.frames import UseKey
from shared.duckdb_engine import duckdb_secret
from shared.lakehouse.files import TableFiles, s3_properties
from shared.settings import S3Key, Settings

_ROLE = "runner"
_NO_KEY = S3Key(access_key_id="none", secret_access_key=SecretStr("none"))
"""What a process uses the store with before it works for anybody."""


class Engines:
    """DuckDB for queries, DuckDB for an author's Python, and PyIceberg's files."""

    def __init__(self, settings: Settings, *, threads: int, spill_directory: str) -> None:
        self._settings = settings.model_copy(update={"s3_keys": {_ROLE: _NO_KEY, **settings.s3_keys}})
        self._threads = threads
        self._spill = spill_directory
        self._changing = Lock()
        self.connection = open_connection(self._settings, threads=threads, spill_directory=spill_directory)
        self._opened = [self.connection]
        self.files = TableFiles(s3_properties(self._settings, _ROLE))

    @property
    def bucket(self) -> str:
        """The platform's bucket."""
        return self._settings.s3_bucket

    def open_for_code(self, memory_limit_bytes: int) -> duckdb.DuckDBPyConnection:
        """Open a database for an author's Python that may hold so many bytes in memory."""
        with self._changing:
            connection = open_connection_for_code(
                self._settings,
                threads=self._threads,
                spill_directory=f"{self._spill}/code",
                memory_limit_bytes=memory_limit_bytes,
            )
            self._opened.append(connection)
        return connection

    def use(self, key: UseKey) -> None:
        """Go on with another key, at once and from whichever thread; a query that runs goes on with the old one."""
        given = S3Key(
            access_key_id=key.access_key_id,
            secret_access_key=SecretStr(key.secret_access_key),
            session_token=SecretStr(key.session_token),
        )
        with self._changing:
            self._settings = self._settings.model_copy(update={"s3_keys": {_ROLE: given}})
            for connection in self._opened:
                with connection.cursor() as cursor:
                    cursor.execute(duckdb_secret(self._settings, _ROLE))
            self.files.use(s3_properties(self._settings, _ROLE))
