"""The command answers at once, finds its platform, and fails in one clear line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli.app import app
from infra.cli.failure import ExitCode, Failure
from infra.cli.folder import read_folder

HEAVY = ("aioboto3", "asyncpg", "duckdb", "faststream", "httpx", "litestar", "nats", "pyarrow", "pydantic", "rich")
COMMANDS = (
    *("up", "serve", "demo", "status", "push", "pipelines", "zones", "upload", "run", "runs", "logs"),
    *("tables", "query", "preview", "test", "versions", "diff", "rollback", "dead list", "dead show", "dead replay"),
    *("cancel", "retry", "trigger list", "trigger add", "trigger remove", "trigger decisions"),
    *("schedule list", "schedule add", "schedule remove", "lineage", "collect"),
)


def rat(*arguments: str, **environment: str | None) -> Result:
    clean = {"RAT_URL": None, "RAT_DATA": None, "RAT_TOKEN": None}
    return CliRunner().invoke(app, arguments, env={**clean, **environment})


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from infra.cli import main\n"
        "sys.argv = ['rat', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "Usage" in ran.stdout
    assert ran.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_answers_in_json(command: str) -> None:
    ran = rat(*command.split(), "--help")

    assert ran.exit_code == ExitCode.OK
    assert "--json" in ran.output
    assert "--url" in ran.output


def test_the_version_is_told() -> None:
    assert rat("--version").output.startswith("rat 0.")


def test_without_a_platform_the_command_says_how_to_get_one(tmp_path: Path) -> None:
    ran = rat("--data", str(tmp_path), "runs")

    assert ran.exit_code == ExitCode.UNREACHABLE
    assert (
        ran.stderr
        == f"rat: no platform is ready on {tmp_path}; start one with `rat up`, or say where one is with --url\n"
    )


def test_a_setting_that_cannot_be_read_is_told_in_one_line() -> None:
    ran = rat("serve", "catalog", RAT_NATS_URLS="nats://127.0.0.1:4222")

    assert ran.exit_code == ExitCode.FAILED
    assert ran.stderr.startswith("rat: settings: ")
    assert """RAT_NATS_URLS: a list or a mapping is given as JSON, as '["a", "b"]' or '{"a": "b"}'\n""" in ran.stderr


def test_a_platform_that_was_killed_is_told_from_one_that_runs(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    user = {"user": "somebody", "password": "secret"}
    connection = {
        "url": "http://127.0.0.1:1",
        "nats": {"url": "nats://127.0.0.1:1", "publisher": user, "subscriber": user},
        "s3": dict.fromkeys(("endpoint", "region", "bucket", "access_key_id", "secret_access_key"), "x"),
        "pid": int(gone.stdout),
        "version": "0.1.0",
    }
    (tmp_path / "connection.json").write_text(json.dumps(connection))

    ran = rat("status", RAT_DATA=str(tmp_path))

    assert ran.exit_code == ExitCode.UNREACHABLE
    assert f"process {connection['pid']} does not exist" in ran.stderr


def test_an_address_where_nobody_answers_is_unreachable_and_says_so_in_json() -> None:
    ran = rat("runs", "--json", RAT_URL="http://127.0.0.1:1")

    assert ran.exit_code == ExitCode.UNREACHABLE
    error = json.loads(ran.stderr)["error"]
    assert error["code"] == "UNREACHABLE"
    assert "http://127.0.0.1:1" in error["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--url", "localhost:8080", "runs"), "'localhost:8080' is no address of a platform"),
        (("--url", "http://127.0.0.1:1", "run", "orders"), "'orders' is not namespace.layer.name"),
        (("--url", "http://127.0.0.1:1", "run", "bronz.orders"), "'bronz' is no layer, did you mean 'bronze'?"),
        (("--url", "http://127.0.0.1:1", "upload", "a/b/c", __file__), "'a/b/c' is not namespace/zone"),
        (("--url", "http://127.0.0.1:1", "run", "silver.orders", "--param", "day"), "--param 'day' is not KEY=VALUE"),
        (("--url", "http://127.0.0.1:1", "dead", "replay"), "name the dead letters, or say --all"),
        (("--url", "http://127.0.0.1:1", "query", "select 1", "--json", "--format", "csv"), "cannot both be"),
        (("--url", "http://127.0.0.1:1", "trigger", "add", "gold.revenue"), "either --zone ZONE or --after PIPELINE"),
        (("--url", "http://127.0.0.1:1", "trigger", "remove", "gold.revenue", "7"), "should be a valid UUID"),
        (("--url", "http://127.0.0.1:1", "cancel", "7"), "'7' is not the id of a run"),
        (("serve", "accounting"), "no service is called 'accounting'"),
        (("frobnicate",), "No such command"),
        (("upload", "orders", "no-such-file.csv"), "no-such-file.csv"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(arguments: tuple[str, ...], message: str) -> None:
    ran = rat(*arguments)

    assert ran.exit_code == ExitCode.USAGE
    assert message in ran.stderr
    assert "Traceback" not in ran.output


def test_a_token_that_cannot_be_one_is_refused_before_it_is_sent() -> None:
    ran = rat("runs", RAT_URL="http://127.0.0.1:1", RAT_TOKEN="rät")

    assert ran.exit_code == ExitCode.USAGE
    assert ran.stderr.startswith("rat: RAT_TOKEN holds what no token has")
    assert "rät" not in ran.stderr


def write(folder: Path, **files: str) -> None:
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_folder_is_laid_out_as_in_the_bucket(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "sales/pipelines/gold/report/pipeline.py": "result = 1",
            "sales/pipelines/bronze/orders/pipeline.sql": "select 1",
            "sales/pipelines/bronze/orders/config.yaml": "merge_strategy: full_refresh",
            "sales/pipelines/bronze/orders/tests/quality/some.sql": "select 2",
            "sales/pipelines/bronze/orders/notes.md": "not for the platform",
        },
    )

    orders, report = read_folder(tmp_path, "default")

    assert (orders.qualified, orders.type) == ("sales.bronze.orders", "sql")
    assert orders.files == {
        "pipeline.sql": "select 1",
        "config.yaml": "merge_strategy: full_refresh",
        "tests/quality/some.sql": "select 2",
    }
    assert (report.qualified, report.type) == ("sales.gold.report", "python")


@pytest.mark.parametrize("place", ["pipelines/bronze/orders", "bronze/orders"])
def test_a_folder_without_a_namespace_takes_the_given_one(tmp_path: Path, place: str) -> None:
    write(tmp_path, **{f"{place}/pipeline.sql": "select 1"})

    [orders] = read_folder(tmp_path, "sales")

    assert orders.qualified == "sales.bronze.orders"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.md": ""}, "holds no pipeline"),
        ({"pipelines/orders/pipeline.sql": ""}, "is not where a pipeline lies"),
        ({"pipelines/copper/orders/pipeline.sql": ""}, "is not where a pipeline lies"),
        ({"gold/report/pipeline.sql": "", "gold/report/pipeline.py": ""}, "has both"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write(tmp_path, **files)

    with pytest.raises(Failure, match=message):
        read_folder(tmp_path, "default")
