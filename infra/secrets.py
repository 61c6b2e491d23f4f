"""Secrets of servers that stand apart: made once, and handed out so that each gets its own and nobody else's.

A folder becomes

    credentials/                 all that was generated; only this module reads it
    <service>/rat_*              the settings of a service, as `RAT_SECRETS` finds them
    <service>/nats-authority.pem whom to trust about who is NATS: `RAT_NATS_CA_FILE` says where it is mounted
    setup/rat_*                  those of `rat setup`, which prepares all servers
    streams/rat_*                those of `rat setup nats --keep`, which sees to the streams for as long as it runs
    postgres/, <node>/, …       what a server is started with

Where the servers are is what the settings say. The folders may be volumes, each mounted where it is needed only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from infra.servers import apart
from infra.servers.certificates import authority, certificate
from infra.servers.credentials import Credentials, read_credentials
from infra.servers.directory import write_privately
from infra.servers.nessie import tokens_signed_by
from infra.servers.tokens import token_key
from infra.setup import ROLES
from shared.settings import S3Key, Settings

_MAPS: Final = ("postgres_passwords", "nats_passwords", "s3_keys", "nessie_tokens")
"""Settings that are secrets: role → what proves that somebody is it."""

_MORE_ROLES: Final = {"runner": ("merge",)}
"""The runner moves main with a token that no run's process has."""

_FORWARDED: Final = ("localhost", "127.0.0.1")
"""What a node of NATS is called besides by whom a port of their own machine leads to it."""


def hand_out(folder: Path, addresses: Settings) -> Settings:
    """Write all folders, and give the settings of `rat setup`, which have everything.

    What is missing is generated, what is there stays, so that any number of times is like once. `addresses` says where
    the servers are: by these addresses they find each other, too.
    """
    kept = _folder(folder, "credentials")
    credentials, key = read_credentials(kept), token_key(kept / "tokens.pem")
    settings = _with(credentials, key, addresses)
    certificates = _folder(kept, "certificates")
    trusted = {apart.AUTHORITY: authority(certificates).read_text()}
    for service in ROLES:
        _write(_folder(folder, service), {**_settings_of(service, settings), **trusted})
    _write(_folder(folder, "setup"), {**_plain(settings), **trusted})
    _write(_folder(folder, "streams"), {**_plain(_for_streams(settings)), **trusted})
    _write(_folder(folder, "postgres"), apart.postgres_files(settings))
    for node, configuration in apart.nats_files(settings, credentials.nats_cluster).items():
        shown = {apart.CERTIFICATE: certificate(certificates, node, [node, *_FORWARDED]).read_text()}
        _write(_folder(folder, node), {"nats-server.conf": configuration, **shown, **trusted})
    _write(_folder(folder, "minio"), {**apart.minio_files(settings), **trusted})
    _write(_folder(folder, "nessie"), apart.nessie_files(settings, key))
    return settings


def _with(credentials: Credentials, key: Path, addresses: Settings) -> Settings:
    return addresses.model_copy(
        update={
            "postgres_passwords": {role: SecretStr(password) for role, password in credentials.postgres.items()},
            "nats_passwords": {user: SecretStr(password) for user, password in credentials.nats.items()},
            "s3_keys": {
                role: S3Key(access_key_id=pair.access_key_id, secret_access_key=SecretStr(pair.secret_access_key))
                for role, pair in credentials.s3.items()
            },
            "nessie_tokens": {role: SecretStr(token) for role, token in tokens_signed_by(key).items()},
        }
    )


def _settings_of(service: str, settings: Settings) -> dict[str, str]:
    """What a service is given: of each map its own entry."""
    roles = {service, *_MORE_ROLES.get(service, ())}
    own = {name: {role: value for role, value in getattr(settings, name).items() if role in roles} for name in _MAPS}
    return _plain(settings.model_copy(update=own))


def _for_streams(settings: Settings) -> Settings:
    """What makes streams is given: the password of `infra` for NATS."""
    nothing: dict[str, dict[str, object]] = {name: {} for name in _MAPS}
    return settings.model_copy(update={**nothing, "nats_passwords": {"infra": settings.nats_passwords["infra"]}})


def _plain(settings: Settings) -> dict[str, str]:
    variables = settings.environment()
    return {f"rat_{name}": variables[f"RAT_{name.upper()}"] for name in _MAPS}


def _folder(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
        write_privately(folder / name, text)
