"""`rat servers`, as somebody uses it who runs the services apart from their servers."""

import asyncio
import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.servers.directory import holder_of
from tests.processes import RAT
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)


def rat(data: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAT_")}
    command = [RAT, "servers", *arguments, "--data", data]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == code, f"rat servers {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


def state(data: Path, code: int = 0) -> Any:
    return json.loads(rat(data, "status", "--json", code=code).stdout)


async def test_servers_are_started_used_by_services_apart_and_stopped(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert f"no servers run on {data}" in rat(data, "status", code=3).stderr
    started = json.loads(rat(data, "up", "--detach", "--stack", kind, "--port", "0", "--json").stdout)
    try:
        assert state(data) == started
        assert {server["state"] for server in started["servers"]} == {"ready"}
        assert f"in use by process {started['pid']}" in rat(data, "up", "--stack", kind, code=1).stderr
        assert f"in use by process {started['pid']}" in rat(data, "up", "-d", "--stack", kind, code=1).stderr

        await services_find_their_servers(Path(started["environment"]), tmp_path / "services.log")
        await a_server_that_dies_is_shown_again(data, started)
    finally:
        rat(data, "down")

    assert not any(psutil.pid_exists(server["pid"]) for server in started["servers"])
    assert not Path(started["environment"]).exists()
    rat(data, "down")
    rat(data, "status", code=3)


async def test_servers_whose_start_is_interrupted_do_not_go_on(kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ["servers", "up", "--detach", "--stack", kind, "--port", "0", "--data", data]
    starting = await asyncio.create_subprocess_exec(RAT, *arguments)
    try:
        await eventually(lambda: holder_of(data))

        starting.send_signal(signal.SIGINT)

        assert await starting.wait() == 130
        await eventually(lambda: holder_of(data) is None)
    finally:
        rat(data, "down")


async def services_find_their_servers(environment: Path, log: Path) -> None:
    assert stat.S_IMODE(environment.stat().st_mode) == 0o600
    script = f'set -a; . "{environment}"; set +a; exec "{RAT}" serve all'
    with log.open("wb") as output:
        services = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdout=output, stderr=output)
    try:
        [line] = [line for line in environment.read_text().splitlines() if line.startswith("RAT_GATEWAY_PORT=")]
        url = f"http://127.0.0.1:{line.partition('=')[2]}"
        await eventually(lambda: httpx.get(f"{url}/health/ready").is_success, within=120)
    finally:
        services.terminate()
        assert await services.wait() == 0, log.read_text()


async def a_server_that_dies_is_shown_again(data: Path, started: Any) -> None:
    victim = started["servers"][0]
    psutil.Process(victim["pid"]).kill()

    def is_back() -> bool:
        [shown] = [server for server in state(data)["servers"] if server["name"] == victim["name"]]
        return bool(shown["pid"] != victim["pid"] and shown["state"] == "ready")

    await eventually(is_back, within=180)


async def test_a_directory_holds_the_data_of_one_kind_of_stack(kind: str, tmp_path: Path) -> None:
    (tmp_path / "stack").write_text("another\n")

    refused = rat(tmp_path, "up", "--stack", kind, code=1)

    assert f"holds the data of the another stack, not of the {kind} one" in refused.stderr
