"""What nodes of NATS say to each other is encrypted, and only who belongs to the cluster joins it."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.servers.nats import NODES
from infra.servers.programs import program
from infra.stacks.stack import Stack
from tests.certificates import certificate
from tests.marks import bus
from tests.stacks import StackIn
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def cluster(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack_in(tmp_path_factory.mktemp("cluster"), ["nats"]) as cluster:
        yield cluster


def configuration(cluster: Stack, node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cluster.directory / node / "nats-server.conf").read_text())
    return found


async def monitored(cluster: Stack, node: str, page: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.get(f"http://{configuration(cluster, node)['http']}/{page}")
    found: dict[str, Any] = answer.json()
    return found


async def test_nodes_speak_encrypted_with_each_other(cluster: Stack) -> None:
    for node in NODES:
        values = await monitored(cluster, node, "varz")
        assert values["tls_required"]
        assert values["cluster"]["tls_required"]
        assert values["cluster"]["tls_verify"]
        assert await neighbours(cluster, node) == {*NODES} - {node}


@contextmanager
def newcomer(cluster: Stack, folder: Path, shown: Mapping[str, str]) -> Iterator[None]:
    """A node that knows the password of the cluster, and shows this certificate."""
    known = configuration(cluster, "nats-1")["cluster"]
    config = {
        "server_name": "newcomer",
        "listen": "127.0.0.1:-1",
        "cluster": {**known, "listen": "127.0.0.1:-1", "tls": {**known["tls"], **shown}},
    }
    path = folder / "nats.conf"
    path.write_text(json.dumps(config))
    with (folder / "nats.log").open("wb") as log:
        server = subprocess.Popen([program("nats-server"), "--config", str(path)], stderr=log)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


async def neighbours(cluster: Stack, node: str) -> set[str]:
    return {str(route["remote_name"]) for route in (await monitored(cluster, node, "routez"))["routes"]}


async def test_a_node_with_the_password_but_without_a_certificate_of_the_stack_does_not_join(
    cluster: Stack, tmp_path: Path
) -> None:
    stranger = certificate(tmp_path)
    log = cluster.directory / "logs" / "nats-2.log"

    with newcomer(cluster, tmp_path, {"cert_file": str(stranger.certificate), "key_file": str(stranger.key)}):
        await eventually(lambda: log.read_text().count("TLS route handshake error") >= 3)
        for node in NODES:
            assert "newcomer" not in await neighbours(cluster, node)


async def test_a_node_with_the_password_and_a_certificate_of_the_stack_joins(cluster: Stack, tmp_path: Path) -> None:
    async def has_joined() -> bool:
        return "newcomer" in await neighbours(cluster, "nats-2")

    with newcomer(cluster, tmp_path, {}):
        await eventually(has_joined)


async def test_a_second_start_keeps_the_certificates(stack_in: StackIn, tmp_path: Path) -> None:
    def certificates() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "certificates").iterdir()}

    async with stack_in(tmp_path, ["nats"]):
        first = certificates()

    async with stack_in(tmp_path, ["nats"]) as second, bus(second) as client:
        assert client.connected_url.scheme == "tls"
        assert certificates() == first
    assert first.keys() == {"authority.key.pem", "authority.pem", *(f"{node}.pem" for node in NODES)}
