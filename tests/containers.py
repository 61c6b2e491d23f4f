"""The distributed stack in containers, from the images that compose uses: `make images` makes them.

The containers have fixed addresses in a network of their own, which this machine reaches as they do: on Linux.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.networks import Network
from docker.types import EndpointConfig, IPAMConfig, IPAMPool
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from infra.failures import unwrapped
from infra.images.__main__ import tag
from infra.preparing import prepare
from infra.secrets import hand_out
from infra.servers.apart import AUTHORITY
from infra.servers.minio import RUN_ROLE
from infra.servers.ports import reserved_ports
from infra.stacks.stack import PARTS, Stack, players
from shared.settings import Settings
from tests.waiting import eventually

_NODES: Final = ("nats-1", "nats-2", "nats-3")
_PLAYERS: Final = {"postgres": ("postgres",), "nats": _NODES, "object_store": ("minio",), "lakehouse": ("nessie",)}
_HOSTS: Final = {name: number for number, name in enumerate(("postgres", *_NODES, "minio", "nessie"), start=10)}
"""The last number of each server's address."""
_READY_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.5
_UNTIL_HEALTHY: Final = ("timeout", "20", "bash", "-c", 'until "$@" >&2; do sleep 0.2; done', "until")
"""Before what asks for a server's health: the engine takes long to start a command in a container, so one waits."""
_RENEWAL_SECONDS: Final = 5.0
_LIFE_SECONDS: Final = 24 * 3600


@dataclass(frozen=True)
class Image:
    """What a server runs from, how it is seen to be ready, and what has to be ready before it."""

    name: str
    health: tuple[str, ...]
    part: str
    """What prepares it for the services."""
    needs: tuple[str, ...] = ()
    renewed: bool = False
    """Whether it is prepared again and again, for what somebody might remove."""


_NATS: Final = Image("rat-nats", ("answers", "8222", "/healthz?js-server-only=true"), "nats")
_IMAGES: Final = {
    "postgres": Image("rat-postgres", ("pg_isready", "--host", "127.0.0.1"), "postgres"),
    **dict.fromkeys(_NODES, _NATS),
    # One for all: the streams are the cluster's.
    _NODES[0]: replace(_NATS, renewed=True),
    "minio": Image("rat-minio", ("answers", "9000", "/minio/health/ready"), "minio"),
    "nessie": Image("rat-nessie", ("answers", "9000", "/q/health/ready"), "nessie", ("postgres", "minio")),
}


class ContainerServer:
    """A server in a container that runs, and runs again."""

    def __init__(self, image: Image, container: DockerContainer, settings: Settings) -> None:
        self._image = image
        self._container = container
        self._settings = settings
        self._needs: list[ContainerServer] = []
        self._ready = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._gone = asyncio.Event()
        self._gone.set()
        # Not the loop's own executor, which so many waiting threads would fill: for its end, and for its health.
        self._waiting = ThreadPoolExecutor(2)

    def find_needs(self, servers: dict[str, "ContainerServer"]) -> None:
        self._needs = [servers[name] for name in self._image.needs if name in servers]

    @property
    def pid(self) -> int | None:
        container = self._container.get_wrapped_container()
        container.reload()
        pid: int = container.attrs["State"]["Pid"]
        return pid or None

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def kill(self) -> None:
        self._ready.clear()
        with suppress(APIError):  # it is dead already
            await asyncio.to_thread(self._container.get_wrapped_container().kill)
        await self._gone.wait()

    async def end(self) -> None:
        """Kill it for good."""
        with suppress(APIError):
            await asyncio.to_thread(self._container.get_wrapped_container().kill)
        self._waiting.shutdown()

    async def until_ready(self) -> None:
        await self._ready.wait()

    async def take_away(self) -> None:
        self._wanted.clear()
        await self.kill()

    def bring_back(self) -> None:
        self._wanted.set()

    async def keep(self) -> None:
        """Run it, and run it again whenever it died, until this is cancelled."""
        while True:
            await self._wanted.wait()
            for server in self._needs:
                await server.until_ready()
            await self._run()

    async def _run(self) -> None:
        container = self._container.get_wrapped_container()
        await asyncio.to_thread(container.start)
        self._gone.clear()
        waiting = partial(container.wait, timeout=_LIFE_SECONDS)
        gone = asyncio.get_running_loop().run_in_executor(self._waiting, waiting)
        preparing = asyncio.create_task(self._prepare())
        try:
            await asyncio.wait({gone, preparing}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                await preparing
                self._ready.set()
            while not gone.done():
                await asyncio.wait({gone}, timeout=_RENEWAL_SECONDS if self._image.renewed else None)
                if not gone.done():
                    await self._renew()
        finally:
            preparing.cancel()
            self._ready.clear()
            self._gone.set()

    async def _renew(self) -> None:
        with suppress(Exception):  # others that it works with may be away
            await prepare([self._image.part], self._settings, wait_seconds=0)

    async def _prepare(self) -> None:
        healthy = partial(asyncio.get_running_loop().run_in_executor, self._waiting, self._becomes_healthy)
        await eventually(healthy, within=_READY_SECONDS, pause=_PAUSE_SECONDS)
        await prepare([self._image.part], self._settings, wait_seconds=_READY_SECONDS)

    def _becomes_healthy(self) -> bool:
        with suppress(APIError):  # it died
            return self._container.exec([*_UNTIL_HEALTHY, *self._image.health]).exit_code == 0
        return False


@asynccontextmanager
async def containers(data: Path, *, gateway_port: int = 8080, servers: Collection[str] = PARTS) -> AsyncIterator[Stack]:
    """Run PostgreSQL, three NATS nodes, MinIO and Nessie in containers until the block is left.

    Parameters are those of the stacks of `infra`. Skips the test where there is no engine, or no images.
    """
    data.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in _IMAGES if name in players(servers, _PLAYERS)]
    with _network() as (network, subnet), reserved_ports(data, ["gateway"]) as ports:
        hosts = {name: str(subnet[number]) for name, number in _HOSTS.items()}
        settings = hand_out(data / "secrets", _addresses(data, hosts, gateway_port or ports["gateway"]))
        _let_containers_read(data / "secrets")
        with unwrapped(), _containers(wanted, hosts, network, data / "secrets") as made:
            running = {name: ContainerServer(_IMAGES[name], made[name], settings) for name in wanted}
            for server in running.values():
                server.find_needs(running)
            async with asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(server.keep()) for server in running.values()]
                await asyncio.gather(*(server.until_ready() for server in running.values()))
                try:
                    yield Stack(settings, data, running, _PLAYERS)
                finally:
                    for keeper in keepers:
                        keeper.cancel()
                    # The threads that wait for their ends end with them.
                    await asyncio.gather(*(server.end() for server in running.values()))


def _addresses(data: Path, hosts: dict[str, str], gateway_port: int) -> Settings:
    spill = data / "spill"
    spill.mkdir(exist_ok=True)
    return Settings(
        postgres_url=f"postgresql://{hosts['postgres']}:5432/rat",
        nats_urls=[f"tls://{hosts[node]}:4222" for node in _NODES],
        nats_ca_file=str(data / "secrets" / "setup" / AUTHORITY),
        nats_replicas=len(_NODES),
        s3_endpoint=f"http://{hosts['minio']}:9000",
        s3_run_role=RUN_ROLE,
        lakehouse="nessie",
        nessie_url=f"http://{hosts['nessie']}:19120",
        gateway_port=gateway_port,
        spill_directory=str(spill),
    )


def _let_containers_read(folder: Path) -> None:
    """They run as somebody else; the folders above are closed to others."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def _network() -> Iterator[tuple[Network, IPv4Network]]:
    """A network with a range of addresses that nobody else uses."""
    try:
        client = docker.from_env()
    except DockerException as error:
        pytest.skip(f"there is no container engine: {error}")
    for subnet in IPv4Network("10.213.0.0/16").subnets(new_prefix=24):
        pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
        try:
            network = client.networks.create(f"rat-tests-{subnet[0]}", ipam=IPAMConfig(pool_configs=[pool]))
        except APIError as error:
            if "overlap" not in str(error) and "already exists" not in str(error):
                raise
            continue
        try:
            yield network, subnet
        finally:
            network.remove()
            client.close()
        return


@contextmanager
def _containers(
    names: Sequence[str], hosts: dict[str, str], network: Network, secrets: Path
) -> Iterator[dict[str, DockerContainer]]:
    # What removes the containers of a killed test is an image that only a registry has.
    testcontainers_config.ryuk_disabled = True
    made: dict[str, DockerContainer] = {}
    try:
        for name in names:
            # A node of NATS is called like its host.
            given = secrets / (hosts[name] if name in _NODES else name)
            made[name] = _container(name, hosts[name], network, given)
        yield made
    finally:
        with ThreadPoolExecutor(len(_IMAGES)) as stopping:
            list(stopping.map(DockerContainer.stop, made.values()))


def _container(name: str, address: str, network: Network, given: Path) -> DockerContainer:
    container = (
        DockerContainer(tag(_IMAGES[name].name))
        .with_volume_mapping(given, "/run/rat", "ro")
        .with_tmpfs_mount("/tmp")
        .with_kwargs(
            init=True,
            network=network.name,
            networking_config={network.name: EndpointConfig("1.41", ipv4_address=address)},
        )
    )
    try:
        return container.start()
    except ImageNotFound:
        pytest.skip(f"there is no image {tag(_IMAGES[name].name)}: make images")
