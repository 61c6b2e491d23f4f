"""Generated credentials of a stack, kept beside its data."""

import secrets
from pathlib import Path
from typing import Final, TypedDict

from pydantic import BaseModel, SecretStr, ValidationError

from infra.servers.directory import write_privately
from infra.setup import ROLES
from shared.errors import Invalid
from shared.settings import S3Key

_NATS_USERS: Final = (*ROLES, "infra", "object_store", "publisher", "subscriber")
_S3_ROLES: Final = ("catalog", "ingest", "runner", "query", "gateway", "nessie", "infra", "uploader")


class KeyPair(BaseModel, frozen=True):
    """An S3 key pair as it is written down."""

    access_key_id: str
    secret_access_key: str


class Logins(TypedDict):
    """Every password and key that services use, as settings have them."""

    postgres_passwords: dict[str, SecretStr]
    nats_passwords: dict[str, SecretStr]
    s3_keys: dict[str, S3Key]


class Credentials(BaseModel, frozen=True):
    """Every password and key of the stack."""

    postgres: dict[str, str] = {}
    nats: dict[str, str] = {}
    s3: dict[str, KeyPair] = {}
    seaweedfs: str = ""
    """Signs what the parts of SeaweedFS say to each other."""
    nats_cluster: str = ""
    """Lets the nodes of a NATS cluster into it."""

    def logins(self) -> Logins:
        """What of it services use."""
        return {
            "postgres_passwords": {role: SecretStr(password) for role, password in self.postgres.items()},
            "nats_passwords": {user: SecretStr(password) for user, password in self.nats.items()},
            "s3_keys": {
                role: S3Key(access_key_id=key.access_key_id, secret_access_key=SecretStr(key.secret_access_key))
                for role, key in self.s3.items()
            },
        }


def read_credentials(directory: Path) -> Credentials:
    """The credentials of this data directory; those that are missing are generated and written down."""
    path = directory / "credentials.json"
    known = _known(path)
    complete = Credentials(
        postgres={role: known.postgres.get(role) or _secret() for role in (*ROLES, "nessie", "infra")},
        nats={user: known.nats.get(user) or _secret() for user in _NATS_USERS},
        s3={role: known.s3.get(role) or _key_pair(role) for role in _S3_ROLES},
        seaweedfs=known.seaweedfs or _secret(),
        nats_cluster=known.nats_cluster or _secret(),
    )
    if complete != known:
        write_privately(path, complete.model_dump_json(indent=2))
    return complete


def _known(path: Path) -> Credentials:
    try:
        return Credentials.model_validate_json(path.read_text())
    except FileNotFoundError:
        return Credentials()
    except ValidationError as error:
        raise Invalid(f"{path} cannot be read: {error}") from error


def _secret() -> str:
    return secrets.token_hex(24)


def _key_pair(role: str) -> KeyPair:
    return KeyPair(access_key_id=f"{role}-{secrets.token_hex(4)}", secret_access_key=_secret())
