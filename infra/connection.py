"""How a running platform is found: `connection.json` in its data directory, while it is ready."""

from typing import Final

from pydantic import BaseModel

FILE_NAME: Final = "connection.json"


class NatsUser(BaseModel, frozen=True):
    """A user of NATS."""

    user: str
    password: str


class NatsConnection(BaseModel, frozen=True):
    """Where events are heard and said by those outside."""

    url: str
    ca_file: str | None = None
    """Certificates of who signed that of the server, where the system does not know them; for a `tls://` address."""
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
