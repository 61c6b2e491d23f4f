"""Configuration of servers that stand apart, each on a host of its own, for what starts them there.

The rules are those of the servers that we start ourselves; only addresses, folders and sizes differ. In a server's
container its data is in `/var/lib/rat`, and what it is started with in `/run/rat`.
"""

import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from infra.servers import minio, nats, nessie, postgres
from shared.settings import Settings

AUTHORITY: Final = "nats-authority.pem"
"""The file that tells a client of NATS whose certificates to trust."""
CERTIFICATE: Final = "certificate.pem"
"""The file that a node of NATS shows, with its key."""

_GIVEN: Final = Path("/run/rat")
_DATA: Final = Path("/var/lib/rat")
_ROUTES_PORT: Final = 6222
_MONITOR_PORT: Final = 8222
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104

_POSTGRES: Final = {
    "listen_addresses": "*",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    # So that it can be backed up, and followed, while it runs.
    "wal_level": "replica",
    "max_wal_senders": "10",
}


def postgres_files(settings: Settings) -> dict[str, str]:
    """What PostgreSQL is started with: its configuration, who may come in, and the password of `infra`."""
    values = {**postgres.SETTINGS, **_POSTGRES, "port": str(urlsplit(settings.postgres_url).port or 5432)}
    return {
        "postgresql.conf": "".join(f"{name} = '{value}'\n" for name, value in values.items()),
        "pg_hba.conf": "host all all all scram-sha-256\n",
        "password": settings.postgres_password("infra"),
    }


def nats_files(settings: Settings, cluster_password: str) -> dict[str, str]:
    """Node → its configuration, beside which it has `AUTHORITY` and `CERTIFICATE`.

    A node is called like its host; the hosts are those of the settings.
    """
    shown, trusted = _GIVEN / CERTIFICATE, _GIVEN / AUTHORITY
    ports = {str(address.hostname): address.port or 4222 for address in map(urlsplit, settings.nats_urls)}
    files = {}
    for node, port in ports.items():
        routes = [f"{other}:{_ROUTES_PORT}" for other in ports if other != node]
        configuration = {
            **nats.configuration(node, _DATA, settings, host=_EVERYWHERE, port=port),
            # Otherwise it tells clients of addresses that are not in its certificate.
            "client_advertise": f"{node}:{port}",
            "tls": nats.encryption(shown),
            # For whoever looks after it on its host.
            "http": f"127.0.0.1:{_MONITOR_PORT}",
            "cluster": nats.cluster(
                f"{_EVERYWHERE}:{_ROUTES_PORT}", routes, cluster_password, shown=shown, trusted=trusted
            ),
        }
        files[node] = json.dumps(configuration, indent=2)
    return files


def minio_files(settings: Settings) -> dict[str, str]:
    """What MinIO reads from the file that `MINIO_CONFIG_ENV_FILE` names."""
    trusting = settings.model_copy(update={"nats_ca_file": str(_GIVEN / AUTHORITY)})
    variables = minio.environment(trusting, _DATA / "queue")
    return {"environment": "".join(f"{name}={value}\n" for name, value in variables.items())}


def nessie_files(settings: Settings, key: Path) -> dict[str, str]:
    """What Nessie is started with; `key` is the private one that tokens are signed with."""
    secrets = nessie.nessie_environment(settings, key)
    return {
        "config/application.properties": nessie.nessie_properties(settings, host=_EVERYWHERE),
        "environment": "".join(f"{name}={value}\n" for name, value in secrets.items()),
    }
