"""A stack whose lakehouse is Nessie's: the embedded servers, and Nessie beside them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from infra.failures import unwrapped
from infra.servers.credentials import read_credentials
from infra.servers.directory import claimed
from infra.servers.guardian import guardian
from infra.servers.nats import nats_server
from infra.servers.nessie import PORTS as NESSIE_PORTS
from infra.servers.nessie import nessie, nessie_tokens
from infra.servers.ports import choose_ports
from infra.servers.postgres import postgres
from infra.servers.seaweedfs import PORTS as SEAWEEDFS_PORTS
from infra.servers.seaweedfs import seaweedfs
from infra.servers.server import KeptServer, Server
from infra.servers.webhook import webhook
from infra.stacks.stack import Stack, kept
from shared.settings import S3Key, Settings

_PORTS = (
    "postgres",
    "nats",
    *(f"{name}{suffix}" for name in SEAWEEDFS_PORTS for suffix in ("", ".grpc")),
    *NESSIE_PORTS,
    "gateway",
)


@asynccontextmanager
async def stack_with_nessie(directory: Path) -> AsyncIterator[Stack]:
    async with claimed(directory.resolve()) as claim:
        ports = choose_ports(claim.directory, _PORTS)
        credentials = read_credentials(claim.directory)
        settings = Settings(
            postgres_url=f"postgresql://127.0.0.1:{ports['postgres']}/rat",
            postgres_passwords={role: SecretStr(password) for role, password in credentials.postgres.items()},
            nats_urls=[f"nats://127.0.0.1:{ports['nats']}"],
            nats_passwords={user: SecretStr(password) for user, password in credentials.nats.items()},
            s3_endpoint=f"http://127.0.0.1:{ports['s3']}",
            s3_keys={
                role: S3Key(access_key_id=key.access_key_id, secret_access_key=SecretStr(key.secret_access_key))
                for role, key in credentials.s3.items()
            },
            lakehouse="nessie",
            nessie_url=f"http://127.0.0.1:{ports['nessie']}",
            nessie_tokens={role: SecretStr(token) for role, token in nessie_tokens(claim).items()},
            gateway_port=ports["gateway"],
            spill_directory=str(claim.empty_folder("spill")),
        )
        logs = claim.folder("logs")
        with guardian(claim.lock) as group, unwrapped():

            def running(*servers: Server) -> dict[str, KeptServer]:
                return {
                    server.name: KeptServer(server, log_file=logs / f"{server.name}.log", group=group, lock=claim.lock)
                    for server in servers
                }

            async with webhook(settings) as address:
                first = running(
                    await postgres(claim, settings, ports["postgres"], group),
                    nats_server(claim, settings, ports["nats"]),
                    seaweedfs(claim, settings, ports, webhook=address, signing_key=credentials.seaweedfs),
                )
                then = running(await nessie(claim, settings, ports))
                async with kept(first), kept(then):
                    yield Stack(settings, claim.directory, first | then, {"lakehouse": ("nessie",)})
