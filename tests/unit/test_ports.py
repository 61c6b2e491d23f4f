"""Stacks that start at the same time, on the same machine, share no port."""

import random
import socket
from pathlib import Path

import pytest

from infra.servers.ports import reserved_ports

NAMES = ("postgres", "nats", "s3")


def folders(parent: Path) -> tuple[Path, Path]:
    one, other = parent / "one", parent / "other"
    one.mkdir()
    other.mkdir()
    return one, other


def test_two_that_choose_at_the_same_time_choose_different_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = folders(tmp_path)
    monkeypatch.setattr(random, "randint", lambda _lowest, _highest: 22_000)

    with reserved_ports(one, NAMES) as ours, reserved_ports(other, NAMES) as theirs:
        assert len({*ours.values(), *theirs.values()}) == 2 * len(NAMES)


def test_the_same_are_chosen_again(tmp_path: Path) -> None:
    with reserved_ports(tmp_path, NAMES) as first:
        pass

    with reserved_ports(tmp_path, [*NAMES, "gateway"]) as second:
        assert {name: second[name] for name in NAMES} == first
        assert len(set(second.values())) == 4


def test_a_server_can_listen_on_what_is_reserved(tmp_path: Path) -> None:
    with reserved_ports(tmp_path, ["nats"]) as ports, socket.create_server(("127.0.0.1", ports["nats"])) as server:
        assert server.getsockname()[1] == ports["nats"]


def test_a_port_that_somebody_has_taken_meanwhile_is_not_chosen_again(tmp_path: Path) -> None:
    one, other = folders(tmp_path)
    with reserved_ports(one, ["nats"]) as first:
        pass

    with socket.create_server(("127.0.0.1", first["nats"])), reserved_ports(one, ["nats"]) as second:
        assert second != first

    (other / "ports.json").write_text("no JSON")
    with reserved_ports(other, ["nats"]) as ports:
        assert ports["nats"]
