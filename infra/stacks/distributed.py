"""The distributed stack on one machine: PostgreSQL, a NATS cluster of three, MinIO and Nessie, without containers."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from infra.failures import unwrapped
from infra.servers.certificates import authority
from infra.servers.credentials import Credentials, read_credentials
from infra.servers.directory import Claim, absolute, claimed
from infra.servers.guardian import guardian
from infra.servers.minio import RUN_ROLE, minio, minio_program
from infra.servers.nats import NODES, PORTS_OF_A_NODE, nats_node
from infra.servers.nessie import PORTS as NESSIE_PORTS
from infra.servers.nessie import nessie, nessie_jar, nessie_tokens
from infra.servers.ports import reserved_ports
from infra.servers.postgres import postgres
from infra.stacks.stack import PARTS, Stack, kept, players
from shared.settings import Settings

_PLAYERS: Final = {
    "postgres": ("postgres",),
    "nats": NODES,
    "object_store": ("minio",),
    "lakehouse": ("nessie",),
}
"""Which servers play which part."""

_PORTS: Final = (
    "postgres",
    "minio",
    *(f"{node}{suffix}" for node in NODES for suffix in PORTS_OF_A_NODE),
    *NESSIE_PORTS,
)


@asynccontextmanager
async def distributed(
    data: Path, *, gateway_port: int = 8080, servers: Collection[str] = PARTS
) -> AsyncIterator[Stack]:
    """Run PostgreSQL, three NATS nodes, MinIO and Nessie with their data in this directory, until the block is left.

    A `gateway_port` of 0 becomes a free one. `servers` can name fewer, or the parts that they play, for tests. Raises
    as `embedded` does, and `Invalid` when what MinIO or Nessie are made with is not installed.
    """
    wanted = players(servers, _PLAYERS)
    async with claimed(absolute(data)) as claim:
        claim.dedicate("distributed")
        for program, server in ((minio_program, "minio"), (nessie_jar, "nessie")):
            if server in wanted:
                await asyncio.to_thread(program)
        names = (*_PORTS, "gateway") if gateway_port == 0 else _PORTS
        credentials = read_credentials(claim.directory)
        with (
            reserved_ports(claim.directory, names) as ports,
            guardian(claim.lock) as group,
            unwrapped(),
        ):
            settings = _settings(claim, credentials, ports, gateway_port or ports["gateway"])
            described = []
            if "postgres" in wanted:
                described.append(await postgres(claim, settings, ports["postgres"], group))
            described += [
                nats_node(claim, settings, ports, node, credentials.nats_cluster) for node in NODES if node in wanted
            ]
            if "minio" in wanted:
                described.append(minio(claim, settings, ports["minio"]))
            if "nessie" in wanted:
                described.append(await nessie(claim, settings, ports))
            async with kept(described, claim, group) as running:
                yield Stack(settings, claim.directory, running, _PLAYERS)


def _settings(claim: Claim, credentials: Credentials, ports: dict[str, int], gateway_port: int) -> Settings:
    return Settings(
        **credentials.logins(),
        postgres_url=f"postgresql://127.0.0.1:{ports['postgres']}/rat",
        nats_urls=[f"tls://127.0.0.1:{ports[node]}" for node in NODES],
        nats_ca_file=str(authority(claim.folder("certificates"))),
        nats_replicas=len(NODES),
        s3_endpoint=f"http://127.0.0.1:{ports['minio']}",
        s3_region="us-east-1",
        s3_bucket="rat",
        s3_run_role=RUN_ROLE,
        lakehouse="nessie",
        nessie_url=f"http://127.0.0.1:{ports['nessie']}",
        nessie_tokens={role: SecretStr(token) for role, token in nessie_tokens(claim).items()},
        gateway_port=gateway_port,
        spill_directory=str(claim.empty_folder("spill")),
    )
