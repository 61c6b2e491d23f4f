"""`rat up` is killed with -9 while files arrive, and started again on the same directory."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from shared.settings import S3Key, Settings
from tests.client import Client, client
from tests.dying import drop, everything_arrived_once, impatient, pipeline_over
from tests.lives import has_ended
from tests.processes import RAT
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(900)

FILES = 30


class RatUp:
    """One `rat up` on a directory, at whatever address it gets."""

    def __init__(self, data: Path, stack: str) -> None:
        self.data = data
        self.stack = stack
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self.data.parent / "rat-up.log").open("ab") as log:
            patience = {key: value for key, value in impatient(Settings()).environment().items() if "SECONDS" in key}
            self.process = await asyncio.create_subprocess_exec(
                *(RAT, "up", "--stack", self.stack, "--data", self.data, "--port", "0"),
                stdout=log,
                stderr=log,
                env={**os.environ, **patience},
            )
        await eventually(self.connection, within=150)

    def connection(self) -> dict[str, object] | None:
        """What `connection.json` says, once it is of this process."""
        assert self.process is not None
        found = json.loads((self.data / "connection.json").read_text())
        return found if found["pid"] == self.process.pid else None

    async def kill(self) -> None:
        """kill -9 of `rat up` alone; all that it started has to end by itself."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        await self.process.wait()
        await eventually(lambda: all(has_ended(one) for one in family))

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()

    @asynccontextmanager
    async def user(self) -> AsyncIterator[Client]:
        """A user who knows the platform by its `connection.json`."""
        found = self.connection()
        assert found is not None
        s3 = found["s3"]
        assert isinstance(s3, dict)
        key = S3Key(access_key_id=s3["access_key_id"], secret_access_key=s3["secret_access_key"])
        settings = Settings(
            s3_endpoint=s3["endpoint"], s3_region=s3["region"], s3_bucket=s3["bucket"], s3_keys={"uploader": key}
        )
        async with client(settings, str(found["url"])) as user:
            yield user


async def test_rat_up_is_killed_while_files_arrive_and_started_again(kind: str, tmp_path: Path) -> None:
    rat = RatUp(tmp_path / "data", kind)
    try:
        await rat.start()
        async with rat.user() as user:
            zone, pipeline = await pipeline_over(user)
        for third in range(3):
            async with rat.user() as user:
                for number in range(third * FILES // 3, (third + 1) * FILES // 3):
                    await drop(user, zone, number)
            await rat.kill()
            await rat.start()

        async with rat.user() as user:
            await everything_arrived_once(user, pipeline, FILES)
    finally:
        await rat.stop()
