"""DuckDB, ready for the bucket: the only place that knows how its extensions and its S3 keys are set up."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

from shared.errors import Internal
from shared.settings import Settings

_EXTENSIONS = ("httpfs", "avro", "iceberg")


def connect(
    settings: Settings,
    role: str,
    *,
    memory_limit: str | None = None,
    threads: int | None = None,
    temp_directory: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that reads and writes the bucket with the keys of a role.

    Costs 0.15 s the first time in a process, 15 ms later on. A connection is no more than one query's at a time;
    `.cursor()` makes another one on the same database at once, with its own transaction and temporary tables.
    `memory_limit` is as DuckDB writes it (`512MB`); without a `temp_directory` nothing is spilled to disk.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        # Their signatures were checked when this process first loaded them; for nothing else, see below.
        "allow_unsigned_extensions": True,
        "temp_directory": temp_directory or "",
        # Files of tables never change; a file of a landing zone is looked at again before it is taken from the cache.
        "enable_external_file_cache": True,
    }
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    if threads is not None:
        config["threads"] = threads
    extensions = _verified()
    connection = duckdb.connect(":memory:", config=config)
    for path in extensions:
        connection.load_extension(str(path))
    # This cannot be turned on again.
    connection.execute("set global allow_unsigned_extensions = false")
    for statement in _trust(settings):
        connection.execute(statement)
    connection.execute(duckdb_secret(settings, role))
    connection.execute("set global TimeZone = 'UTC'")
    return connection


def duckdb_secret(settings: Settings, role: str) -> str:
    """Write the statement that tells DuckDB where the object store is and with which keys to use it."""
    endpoint = urlsplit(settings.s3_endpoint)
    key = settings.s3_key(role)
    token = key.session_token.get_secret_value() if key.session_token is not None else ""
    return f"""
        create or replace secret bucket (
          type s3,
          endpoint {_quoted(endpoint.netloc)},
          use_ssl {endpoint.scheme == "https"},
          url_style {_quoted("path" if settings.s3_path_style else "vhost")},
          region {_quoted(settings.s3_region)},
          key_id {_quoted(key.access_key_id)},
          secret {_quoted(key.secret_access_key.get_secret_value())},
          session_token {_quoted(token)}
        )
    """


def _trust(settings: Settings) -> list[str]:
    """The statements that have DuckDB look who the store is, which it does not by itself."""
    if not settings.s3_endpoint.startswith("https://"):
        return []
    look = [
        "set global enable_server_cert_verification = true",
        "set global enable_curl_server_cert_verification = true",
    ]
    return [*look, *([f"set global ca_cert_file = {_quoted(settings.s3_ca_file)}"] if settings.s3_ca_file else [])]


@cache
def _verified() -> tuple[Path, ...]:
    """Find the extensions, once DuckDB has checked their signatures, and with that loaded their code into this process.

    Reading 80 MB for the signatures is nearly all that loading costs, and each database would do it again.
    """
    paths = tuple(_extension(name) for name in _EXTENSIONS)
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": False}) as checked:
        for path in paths:
            checked.load_extension(str(path))
    return paths


def _extension(name: str) -> Path:
    """Find an extension in its wheel: signed, and without a download at run time."""
    package = find_spec(f"duckdb_extension_{name}")
    if package is None or package.origin is None:
        raise Internal(f"the package duckdb-extension-{name} is not installed")
    folder = Path(package.origin).parent / "extensions" / f"v{duckdb.__version__}"
    return folder / f"{name}.duckdb_extension"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
