"""The embedded stack: PostgreSQL, NATS and SeaweedFS from wheels, as part of one process."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from infra.failures import unwrapped
from infra.servers.credentials import Credentials, read_credentials
from infra.servers.directory import Claim, absolute, claimed
from infra.servers.guardian import guardian
from infra.servers.nats import nats_server
from infra.servers.ports import reserved_ports
from infra.servers.postgres import postgres
from infra.servers.seaweedfs import PORTS as SEAWEEDFS_PORTS
from infra.servers.seaweedfs import RUN_ROLE, grpc_sockets, seaweedfs
from infra.servers.webhook import webhook
from infra.stacks.stack import PARTS, Stack, kept, players
from shared.settings import Settings

_PLAYERS: Final = {
    "postgres": ("postgres",),
    "nats": ("nats",),
    "object_store": ("seaweedfs",),
    "lakehouse": ("postgres",),
}
"""Which servers play which part."""

_PORTS: Final = (
    "postgres",
    "nats",
    *(f"{name}{suffix}" for name in SEAWEEDFS_PORTS for suffix in ("", ".grpc")),
)


@asynccontextmanager
async def embedded(data: Path, *, gateway_port: int = 8080, servers: Collection[str] = PARTS) -> AsyncIterator[Stack]:
    """Run PostgreSQL, NATS and SeaweedFS with their data in this directory, until the block is left.

    A `gateway_port` of 0 becomes a free one. `servers` can name fewer, or the parts that they play, for tests. Raises
    `Conflict` when another process uses the directory, `Unavailable` with the end of its log when a server does not
    start. One that dies is started again; one that dies five times within a minute cancels the block, and is raised as
    `Unavailable`.
    """
    async with claimed(absolute(data)) as claim:
        claim.dedicate("embedded")
        names = (*_PORTS, "gateway") if gateway_port == 0 else _PORTS
        credentials = read_credentials(claim.directory)
        with (
            reserved_ports(claim.directory, names) as ports,
            guardian(claim.lock) as group,
            _sockets_removed(ports),
            unwrapped(),
        ):
            settings = _settings(claim, credentials, ports, gateway_port or ports["gateway"])
            async with webhook(settings) as address:
                wanted = players(servers, _PLAYERS)
                described = []
                if "postgres" in wanted:
                    described.append(await postgres(claim, settings, ports["postgres"], group))
                if "nats" in wanted:
                    described.append(nats_server(claim, settings, ports["nats"]))
                if "seaweedfs" in wanted:
                    described.append(
                        seaweedfs(claim, settings, ports, webhook=address, signing_key=credentials.seaweedfs)
                    )
                async with kept(described, claim, group) as running:
                    yield Stack(settings, claim.directory, running, _PLAYERS)


@contextmanager
def _sockets_removed(ports: dict[str, int]) -> Iterator[None]:
    try:
        yield
    finally:
        for path in grpc_sockets(ports):
            path.unlink(missing_ok=True)


def _settings(claim: Claim, credentials: Credentials, ports: dict[str, int], gateway_port: int) -> Settings:
    return Settings(
        **credentials.logins(),
        postgres_url=f"postgresql://127.0.0.1:{ports['postgres']}/rat",
        nats_urls=[f"nats://127.0.0.1:{ports['nats']}"],
        nats_replicas=1,
        s3_endpoint=f"http://127.0.0.1:{ports['s3']}",
        s3_region="us-east-1",
        s3_bucket="rat",
        s3_run_role=RUN_ROLE,
        lakehouse="embedded",
        gateway_port=gateway_port,
        spill_directory=str(claim.empty_folder("spill")),
    )
