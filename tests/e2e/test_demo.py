"""The demo does what it says."""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from contracts.messages import utc_now
from infra.demo.flights import FLIGHTS
from infra.demo.screen import Screen
from infra.demo.story import story_at
from infra.services import serving
from shared.errors import TimedOut
from tests.e2e.conftest import Platform
from tests.processes import RAT

pytestmark = pytest.mark.timeout(600)


def played(*arguments: str) -> dict[str, Any]:
    ran = subprocess.run([RAT, "demo", *arguments, "--json"], capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    summary: dict[str, Any] = json.loads(ran.stdout)
    return summary


def test_the_demo_ends_well_and_leaves_nothing(kind: str) -> None:
    has_gone_well(played("--stack", kind))


async def test_the_demo_ends_well_on_a_platform_that_others_use_and_leaves_it(platform: Platform) -> None:
    before = await platform.user.get("/namespaces")

    summary = await asyncio.to_thread(played, "--url", platform.url)

    has_gone_well(summary)
    assert await platform.user.get("/namespaces") == before


async def test_what_went_wrong_first_is_told_when_the_namespace_cannot_be_removed_either(platform: Platform) -> None:
    settings = platform.stack.settings.model_copy(update={"gateway_port": 0})
    shown = StringIO()

    async def tell() -> None:
        async with AsyncExitStack() as gateways:
            [url] = (await gateways.enter_async_context(serving(["gateway"], settings))).values()
            async with story_at(url, None, Screen(Console(file=shown, width=200), utc_now())):
                await gateways.aclose()
                raise TimedOut("this went wrong first")

    with pytest.raises(TimedOut, match="went wrong first"):
        await tell()

    assert "could not be removed: DELETE /namespaces/nyc_" in shown.getvalue()


def has_gone_well(summary: dict[str, Any]) -> None:
    checks = {check["what"]: check for check in summary["checks"]}
    assert summary["ok"]
    assert all(check["holds"] for check in checks.values())
    assert checks["flights in bronze"]["found"] == FLIGHTS
    assert checks["flights in gold"]["found"] == FLIGHTS
    assert checks["files that were read exactly once"]["found"] == 12
    assert summary["files_landed"] == 17
    assert summary["runs_refused"] >= 1
    assert summary["runs"] == summary["runs_succeeded"] + summary["runs_refused"]
