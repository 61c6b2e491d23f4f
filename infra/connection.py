"""How a running platform is found: `connection.json` in its data directory, while it is ready."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from os import getpid
from pathlib import Path

from pydantic import BaseModel

from infra.embedded.directory import write_privately
from shared.settings import Settings

FILE_NAME = "connection.json"


class NatsUser(BaseModel, frozen=True):
    """A user of NATS."""

    user: str
    password: str


class NatsConnection(BaseModel, frozen=True):
    """Where events are heard and said by those outside."""

    url: str
    publisher: NatsUser
    """May say `run.requested` and `event.>`."""
    subscriber: NatsUser
    """May hear all events."""


class S3Connection(BaseModel, frozen=True):
    """Where files are dropped: a key for landing zones and nothing else."""

    endpoint: str
    region: str
    bucket: str
    access_key_id: str
    secret_access_key: str


class Connection(BaseModel, frozen=True):
    """All that somebody outside needs to use a platform."""

    url: str
    token: str | None = None
    """For the `Authorization` header, where one is needed."""
    nats: NatsConnection
    s3: S3Connection
    pid: int
    version: str


def connection_to(url: str, settings: Settings) -> Connection:
    """How to reach the platform in this process whose gateway listens on `url`."""
    uploader = settings.s3_key("uploader")
    return Connection(
        url=url,
        nats=NatsConnection(
            url=settings.nats_urls[0],
            publisher=NatsUser(user="publisher", password=settings.nats_password("publisher")),
            subscriber=NatsUser(user="subscriber", password=settings.nats_password("subscriber")),
        ),
        s3=S3Connection(
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            bucket=settings.s3_bucket,
            access_key_id=uploader.access_key_id,
            secret_access_key=uploader.secret_access_key.get_secret_value(),
        ),
        pid=getpid(),
        version=version("rat-platform"),
    )


@contextmanager
def announced(connection: Connection, data: Path) -> Iterator[None]:
    """Let others find the platform until the block is left."""
    path = data / FILE_NAME
    write_privately(path, connection.model_dump_json(indent=2, exclude_none=True) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
