"""What compose.yaml promises of every container."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.images.__main__ import IMAGES, tag
from infra.servers.apart import AUTHORITY
from infra.services import SERVICES

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"secrets", "setup", "setup-nessie", "token"}


def test_every_service_runs() -> None:
    assert {
        container["command"][1] for container in CONTAINERS.values() if "serve" in container.get("command", ())
    } == (set(SERVICES))


def test_nothing_but_the_gateway_is_published_or_leads_out() -> None:
    assert [name for name, container in CONTAINERS.items() if "ports" in container] == ["gateway"]
    leading_out = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    assert leading_out == {"outside"}
    assert [name for name, container in CONTAINERS.items() if "outside" in container.get("networks", ())] == ["gateway"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_confined_and_limited(name: str) -> None:
    container = CONTAINERS[name]

    assert container["read_only"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= container.keys()
    assert ("healthcheck" in container) == (name not in ONCE)
    assert container["restart"] == ("no" if name in ONCE else "unless-stopped")


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "secrets"])
def test_a_container_sees_one_folder_of_secrets_and_cannot_write_it(name: str) -> None:
    secrets = [volume for volume in CONTAINERS[name]["volumes"] if volume.partition(":")[0].endswith("-secrets")]

    assert len(secrets) == 1
    assert secrets[0].endswith(":/run/rat:ro")


def test_who_uses_nats_encrypts_and_knows_whom_to_trust() -> None:
    clients = [container["environment"] for container in CONTAINERS.values() if "environment" in container]

    for environment in clients:
        assert all(url.startswith("tls://") for url in json.loads(environment["RAT_NATS_URLS"]))
        assert environment["RAT_NATS_CA_FILE"] == f"/run/rat/{AUTHORITY}"


def test_images_are_those_that_are_built() -> None:
    named = {container["image"].partition(":-")[2].rstrip("}") for container in CONTAINERS.values()}

    assert named == {tag(name if name == "rat" else f"rat-{name}") for name in IMAGES}
