"""Whatever is killed, whenever: each file's rows are in the table exactly once, no run is stuck, no letter is dead."""

import pytest

from tests.dying import Platform, with_kills

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("service", ["runner", "catalog", "trigger", "ingest"])
async def test_a_service_is_killed_while_files_arrive(platform: Platform, service: str) -> None:
    async def kill() -> None:
        await platform.processes[service].kill()
        await platform.processes[service].start()

    await with_kills(platform, kill)


async def test_a_server_is_killed_while_files_arrive(platform: Platform, victim: str) -> None:
    async def kill() -> None:
        await platform.stack.kill(victim)
        await platform.stack.until_ready(victim)

    await with_kills(platform, kill)
