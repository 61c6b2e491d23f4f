"""Ports of a stack: free ones on loopback, the same as last time wherever possible."""

import json
import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from infra.servers.directory import write_privately
from shared.errors import Unavailable

_LOWEST: Final = 15_000
_HIGHEST: Final = 30_000
"""Below what systems give to outgoing connections, so that none of those sits on a port while its server restarts."""


@contextmanager
def reserved_ports(directory: Path, names: Iterable[str]) -> Iterator[dict[str, int]]:
    """A free port for each name, until the block is left. The choice is remembered: addresses outlive a restart.

    Another stack chooses none of them meanwhile, also while no server listens there yet, or not again yet.
    """
    remembered = _remembered(directory / "ports.json")
    chosen: dict[str, int] = {}
    candidates = _candidates()
    with ExitStack() as held:
        for name in names:
            port = remembered.get(name, 0)
            while (reservation := _reserved(port)) is None:
                port = next(candidates)
            held.enter_context(reservation)
            chosen[name] = port
        write_privately(directory / "ports.json", json.dumps(remembered | chosen, indent=2))
        yield chosen


def is_free(port: int) -> bool:
    """Whether a server can listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _reserved(port: int) -> socket.socket | None:
    """Who holds the UDP port of this number has reserved the TCP port; no server of ours uses UDP."""
    if not is_free(port):
        return None
    reservation = socket.socket(type=socket.SOCK_DGRAM)
    try:
        reservation.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        return None
    return reservation


def _candidates() -> Iterator[int]:
    first = random.randint(_LOWEST, _HIGHEST)  # noqa: S311
    yield from (*range(first, _HIGHEST + 1), *range(_LOWEST, first))
    raise Unavailable(f"no port between {_LOWEST} and {_HIGHEST} is free")


def _remembered(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        # It is a preference only; whatever is wrong with it, new ports do as well.
        return {}
