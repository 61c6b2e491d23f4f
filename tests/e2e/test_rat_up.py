"""`rat up` and the other commands, as somebody at a terminal uses them."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from shared.tls import trusting
from tests.processes import RAT
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)

ORDERS = "id,amount\n1,10.5\n2,20.0\n3,-1.0\n"
CLEAN_ORDERS = "id,amount\n1,10.5\n2,20.0\n3,1.0\n"


class Terminal:
    """Where somebody types commands for the platform on one data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def rat(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAT_")}
        ran = subprocess.run(
            [RAT, *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            env={**environment, "RAT_DATA": str(self.data)},
        )
        assert ran.returncode == code, f"rat {' '.join(arguments)}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.rat(*arguments, "--json", code=code).stdout)

    @property
    def connection(self) -> Path:
        return self.data / "connection.json"


@contextmanager
def rat_up(data: Path, log: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        up = subprocess.Popen([RAT, "up", "--stack", kind, "--data", data, "--port", "0"], stdout=output, stderr=output)
    try:
        yield up
    finally:
        if up.poll() is None:
            up.kill()
        up.wait()


async def ready(terminal: Terminal, up: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    def is_there() -> bool:
        if up.poll() is not None:
            pytest.fail(f"rat up ended with {up.returncode}: {log.read_text()}")
        return terminal.connection.exists()

    await eventually(is_there, within=150)
    connection: dict[str, Any] = json.loads(terminal.connection.read_text())
    return connection


async def test_where_others_can_reach_it_the_platform_wants_a_token_which_its_directory_has(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAT_GATEWAY_HOST", "0.0.0.0")
    terminal, log = Terminal(tmp_path / "data"), tmp_path / "up.log"
    with rat_up(terminal.data, log, kind) as up:
        connection = await ready(terminal, up, log)
        assert terminal.json("tables")["total"] == 0
        refused = terminal.rat("tables", "--url", connection["url"], code=1)
        assert "token" in refused.stderr
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0

    with rat_up(terminal.data, log, kind) as up:
        assert (await ready(terminal, up, log))["token"] == connection["token"]


def write_pipelines(folder: Path) -> None:
    home = folder / "pipelines" / "bronze" / "orders"
    (home / "tests" / "quality").mkdir(parents=True)
    (home / "pipeline.sql").write_text("select id, amount from read_csv({{ landing_zone('orders') }})\n")
    (home / "tests" / "quality" / "amounts.sql").write_text("select * from {{ this }} where amount < 0\n")


async def test_a_platform_is_started_used_stopped_and_found_again(kind: str, tmp_path: Path) -> None:
    terminal, log = Terminal(tmp_path / "data"), tmp_path / "up.log"
    with rat_up(terminal.data, log, kind) as up:
        connection = await ready(terminal, up, log)
        assert set(connection) == {"url", "nats", "s3", "pid", "version"}
        assert set(connection["nats"]) - {"ca_file"} == {"url", "publisher", "subscriber"}
        assert ("ca_file" in connection["nats"]) == connection["nats"]["url"].startswith("tls://")
        assert set(connection["s3"]) == {"endpoint", "region", "bucket", "access_key_id", "secret_access_key"}
        assert connection["pid"] == up.pid
        assert stat.S_IMODE(terminal.connection.stat().st_mode) == 0o600

        await look_around(terminal)
        push_and_publish(terminal, tmp_path / "code")
        push_python(terminal, tmp_path / "python")
        refuse_what_does_not_exist(terminal, tmp_path)
        run_id = run_what_a_test_refuses(terminal, tmp_path / "orders.csv")
        read_its_log(terminal, run_id)
        run_what_is_good(terminal, tmp_path / "orders.csv")
        query_in_all_formats(terminal)
        look_without_a_run(terminal, tmp_path)
        go_back(terminal)
        await let_it_run_by_itself(terminal, tmp_path / "orders.csv")
        await replay_what_could_not_be_handled(terminal, connection["nats"])

        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=120) == 0
        assert not terminal.connection.exists()
        terminal.rat("status", code=3)

    with rat_up(terminal.data, log, kind) as up:
        await ready(terminal, up, log)

        assert terminal.json("query", "select count(*) as orders from bronze.orders")["rows"] == [{"orders": 3}]
        assert terminal.json("runs", "--status", "success")["total"] == 4

        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=120) == 0
        assert not terminal.connection.exists()


async def look_around(terminal: Terminal) -> None:
    # A busy machine may leave one of the parts too little time to show that it is there.
    status = await eventually(lambda: terminal.json("status"))
    assert status["health"]["status"] == "ready"
    assert {part["state"] for part in status["health"]["dependencies"].values()} == {"up"}
    assert any(lag["consumer"] == "runner-run-queued" for lag in status["consumers"])
    assert status["dead_letters"] == 0
    assert "0 dead letters" in (await eventually(lambda: terminal.rat("status"))).stdout
    assert "no dead letter" in terminal.rat("dead", "list").stdout
    assert "nothing to collect" in terminal.rat("collect", "--dry-run").stdout
    assert "no table" in terminal.rat("tables").stdout


def push_and_publish(terminal: Terminal, code: Path) -> None:
    write_pipelines(code)
    [made] = terminal.json("push", str(code))["pipelines"]
    assert made["created"]
    assert made["version"] is None
    assert set(made["written"]) >= {"pipeline.sql", "tests/quality/amounts.sql"}

    assert "version 1 published" in terminal.rat("push", str(code), "--publish").stdout
    assert "unchanged" in terminal.rat("push", str(code), "--publish").stdout

    sql = code / "pipelines" / "bronze" / "orders" / "pipeline.sql"
    good = sql.read_text()
    sql.write_text("selekt 1\n")
    refused = terminal.rat("push", str(code), "--publish", code=1)
    assert "default.bronze.orders was not published" in refused.stderr
    assert "pipeline.sql:1:" in refused.stderr

    sql.write_text(good)
    (code / "pipelines" / "bronze" / "orders" / "config.yaml").write_text("description: Orders\n")
    [changed] = terminal.json("push", str(code), "--publish")["pipelines"]
    assert set(changed["written"]) == {"pipeline.sql", "config.yaml"}
    assert changed["version"] == 2

    (code / "pipelines" / "bronze" / "orders" / "config.yaml").unlink()
    [kept] = terminal.json("push", str(code))["pipelines"]
    assert kept["removed"] == []
    [pruned] = terminal.json("push", str(code), "--prune", "--publish")["pipelines"]
    assert pruned["removed"] == ["config.yaml"]


def push_python(terminal: Terminal, code: Path) -> None:
    folder = code / "pipelines" / "gold" / "greeting"
    folder.mkdir(parents=True)
    (folder / "pipeline.py").write_text("def pipeline(ctx):\n    return ctx.duckdb.sql('select 1 as id')\n")

    [made] = terminal.json("push", str(code), "--publish")["pipelines"]

    assert (made["created"], made["version"]) == (True, 1)


def refuse_what_does_not_exist(terminal: Terminal, folder: Path) -> None:
    (folder / "some.csv").write_text("a\n1\n")
    assert (
        "there is no landing zone default/nowhere"
        in terminal.rat("upload", "nowhere", str(folder / "some.csv"), code=4).stderr
    )
    terminal.rat("run", "bronze.nothing", code=4)
    terminal.rat("runs", "00000000-0000-0000-0000-000000000000", code=4)
    terminal.rat("dead", "show", "99", code=4)


def run_what_a_test_refuses(terminal: Terminal, orders: Path) -> str:
    orders.write_text(ORDERS)
    [landed] = terminal.json("upload", "orders", str(orders), "--create")["files"]
    assert (landed["filename"], landed["state"]) == ("orders.csv", "landed")

    followed = terminal.rat("run", "bronze.orders", "--follow", code=1)

    assert "amounts" in followed.stdout
    assert "failed" in followed.stderr
    [failed] = terminal.json("runs", "--status", "failed")["runs"]
    assert failed["error_kind"] == "quality"
    return str(failed["id"])


def read_its_log(terminal: Terminal, run_id: str) -> None:
    answer = terminal.json("logs", run_id)
    assert answer["status"] == "failed"
    assert any("amounts" in line["message"] for line in answer["logs"])
    assert "amounts" in terminal.rat("logs", run_id).stdout
    events = [json.loads(line) for line in terminal.rat("logs", run_id, "-f", "--json", code=1).stdout.splitlines()]
    assert [event["event"] for event in events][-2:] == ["status", "run"]
    shown = terminal.json("runs", run_id)
    assert [test["name"] for test in shown["quality"]] == ["amounts"]
    assert "amounts" in terminal.rat("runs", run_id).stdout


def run_what_is_good(terminal: Terminal, orders: Path) -> None:
    orders.write_text(CLEAN_ORDERS)
    terminal.rat("upload", "orders", str(orders))

    followed = terminal.rat("run", "default.bronze.orders", "-f", "--param", "day=3")

    assert "success" in followed.stdout
    assert terminal.json("runs", "--limit", "1")["runs"][0]["parameters"] == {"day": 3}
    assert "default.bronze.orders" in terminal.rat("tables").stdout
    assert "default/orders" in terminal.rat("zones").stdout
    assert "default.bronze.orders" in terminal.rat("pipelines").stdout


def look_without_a_run(terminal: Terminal, folder: Path) -> None:
    seen = terminal.json("preview", "bronze.orders", "--limit", "2")
    assert (len(seen["rows"]), seen["total_row_count"], seen["error"]) == (2, 3, None)
    other = folder / "other.sql"
    other.write_text("select id, amount * 2 as twice\nfrom {{ this }}\n")
    shown = terminal.rat("preview", "bronze.orders", "--file", str(other), "--plan").stdout
    assert "twice" in shown
    assert "3 of 3 rows" in shown
    other.write_text("select idd from {{ this }}")
    assert "pipeline.sql:1:8" in terminal.rat("preview", "bronze.orders", "-f", str(other), code=1).stderr

    assert "amounts" in terminal.rat("test", "bronze.orders").stdout
    dry = terminal.rat("run", "bronze.orders", "--dry-run").stdout
    assert "would change" in dry
    assert "dry run, main is as it was" in dry


def go_back(terminal: Terminal) -> None:
    assert [one["version_number"] for one in terminal.json("versions", "bronze.orders")["versions"]] == [3, 2, 1]
    assert "config.yaml" in terminal.rat("diff", "bronze.orders", "2").stdout
    assert terminal.json("diff", "bronze.orders", "1", "3")["files"] == []
    assert "version 4 has the files of version 2" in terminal.rat("rollback", "bronze.orders", "2").stdout
    assert "has no version 9" in terminal.rat("rollback", "bronze.orders", "9", code=4).stderr


async def let_it_run_by_itself(terminal: Terminal, orders: Path) -> None:
    assert "no trigger" in terminal.rat("trigger", "list", "bronze.orders").stdout
    added = terminal.rat("trigger", "add", "bronze.orders", "--zone", "orders", "--cooldown", "1").stdout
    assert "default.bronze.orders wakes on files in default/orders" in added
    assert "is no pipeline" in terminal.rat("trigger", "add", "bronze.orders", "--after", "gold.no", code=4).stderr
    [trigger] = terminal.json("trigger", "list", "bronze.orders")["triggers"]
    assert (trigger["type"], trigger["cooldown_seconds"]) == ("landing_zone_upload", 1)

    terminal.rat("upload", "orders", str(orders))

    [fired] = await eventually(
        lambda: terminal.json("trigger", "decisions", "bronze.orders", trigger["id"])["decisions"]
    )
    assert fired["run_id"] in terminal.rat("trigger", "decisions", "bronze.orders", trigger["id"]).stdout
    await eventually(lambda: terminal.json("runs", fired["run_id"])["status"] == "success", within=60)
    terminal.rat("retry", fired["run_id"], "--follow")
    assert "success" in terminal.rat("cancel", fired["run_id"], code=1).stderr
    terminal.rat("trigger", "remove", "bronze.orders", trigger["id"])
    assert terminal.json("trigger", "list", "bronze.orders")["triggers"] == []

    assert "runs next at" in terminal.rat("schedule", "add", "bronze.orders", "0 6 1 1 *").stdout
    assert "default.bronze.orders" in terminal.rat("schedule", "list").stdout
    refused = terminal.rat("schedule", "add", "bronze.orders", "at noon", code=1)
    assert "at noon" in refused.stderr
    [schedule] = terminal.json("schedule", "list")["schedules"]
    terminal.rat("schedule", "remove", schedule["id"])
    assert "no schedule" in terminal.rat("schedule", "list").stdout


def query_in_all_formats(terminal: Terminal) -> None:
    sql = "select id, amount from bronze.orders order by id"
    assert "3 rows" in terminal.rat("query", sql).stdout
    assert terminal.rat("query", sql, "--format", "csv").stdout.splitlines()[:2] == ["id,amount", "1,10.5"]
    assert [row["id"] for row in terminal.json("query", sql)["rows"]] == [1, 2, 3]
    refused = terminal.rat("query", "select nonsense from bronze.orders", code=1)
    assert "nonsense" in refused.stderr
    assert "Traceback" not in refused.stderr


async def replay_what_could_not_be_handled(terminal: Terminal, server: dict[str, Any]) -> None:
    client = await nats.connect(
        server["url"],
        user=server["publisher"]["user"],
        password=server["publisher"]["password"],
        tls=trusting(server["ca_file"]) if "ca_file" in server else None,
        connect_timeout=20,
    )
    await client.jetstream().publish("run.requested", b'{"pipeline": "default.bronze.orders"}')
    await client.close()

    [dead] = await eventually(lambda: terminal.json("dead", "list")["dead_letters"])
    assert (dead["service"], dead["subject"]) == ("catalog", "run.requested")
    assert "trigger" in dead["reason"]
    shown = terminal.json("dead", "show", str(dead["id"]))
    assert shown["body"] == {"pipeline": "default.bronze.orders"}
    assert "trigger" in terminal.rat("dead", "show", str(dead["id"])).stdout

    terminal.rat("dead", "replay", "--all")

    # It is no better than before, and dies again, under the same id.
    [again] = await eventually(lambda: terminal.json("dead", "list")["dead_letters"])
    assert again["id"] > dead["id"]
    assert again["event_id"] == dead["event_id"]


async def test_a_directory_has_one_platform_and_a_port_one_gateway(kind: str, tmp_path: Path) -> None:
    terminal, log = Terminal(tmp_path / "data"), tmp_path / "up.log"
    with rat_up(terminal.data, log, kind) as up:
        connection = await ready(terminal, up, log)
        port = connection["url"].rpartition(":")[2]

        second = terminal.rat("up", "--stack", kind, "--port", port, code=1)
        assert f"in use by process {up.pid}" in second.stderr

        other = terminal.rat("up", "--stack", kind, "--data", str(tmp_path / "other"), "--port", port, code=1)
        assert f"the gateway cannot listen on port {port}" in other.stderr
        assert not (tmp_path / "other" / "postgres").exists()
        assert terminal.connection.exists()


async def test_what_a_killed_platform_left_behind_does_not_stand_in_the_way(kind: str, tmp_path: Path) -> None:
    terminal, log = Terminal(tmp_path / "data"), tmp_path / "up.log"
    with rat_up(terminal.data, log, kind) as up:
        await ready(terminal, up, log)
        up.kill()
        up.wait()
        assert terminal.connection.exists()
        assert "does not exist" in terminal.rat("status", code=3).stderr

    with rat_up(terminal.data, log, kind) as up:
        await eventually(lambda: not terminal.connection.exists(), within=150)
        connection = await ready(terminal, up, log)
        assert connection["pid"] == up.pid
        up.send_signal(signal.SIGTERM)
        assert up.wait(timeout=120) == 0
