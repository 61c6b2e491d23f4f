"""The demo does what it says."""

import json
import subprocess

from infra.demo.flights import FLIGHTS
from tests.processes import RAT


def test_the_demo_ends_well_and_leaves_nothing(kind: str) -> None:
    ran = subprocess.run([RAT, "demo", "--stack", kind, "--json"], capture_output=True, text=True, timeout=170)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    summary = json.loads(ran.stdout)
    checks = {check["what"]: check for check in summary["checks"]}
    assert summary["ok"]
    assert all(check["holds"] for check in checks.values())
    assert checks["flights in bronze"]["found"] == FLIGHTS
    assert checks["flights in gold"]["found"] == FLIGHTS
    assert checks["files that were read exactly once"]["found"] == 12
    assert summary["files_landed"] == 17
    assert summary["runs_refused"] >= 1
    assert summary["runs"] == summary["runs_succeeded"] + summary["runs_refused"]
