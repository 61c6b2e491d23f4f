"""Ports of a stack: free ones on loopback, the same as last time wherever possible."""

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from infra.servers.directory import write_privately
from shared.errors import Unavailable

_LOWEST: Final = 15_000
_HIGHEST: Final = 30_000
"""Below what systems give to outgoing connections, so that none of those sits on a port while its server restarts."""


def choose_ports(directory: Path, names: Iterable[str]) -> dict[str, int]:
    """A free port for each name. The choice is remembered, so that addresses outlive a restart."""
    remembered = _remembered(directory / "ports.json")
    chosen: dict[str, int] = {}
    for name in names:
        port = remembered.get(name, 0)
        chosen[name] = port if is_free(port) and port not in chosen.values() else _free_port(chosen.values())
    write_privately(directory / "ports.json", json.dumps(remembered | chosen, indent=2))
    return chosen


def is_free(port: int) -> bool:
    """Whether a server can listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _free_port(taken: Iterable[int]) -> int:
    for _ in range(1000):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311
        if port not in taken and is_free(port):
            return port
    raise Unavailable(f"no port between {_LOWEST} and {_HIGHEST} is free")


def _remembered(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        # It is a preference only; whatever is wrong with it, new ports do as well.
        return {}
