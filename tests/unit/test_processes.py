import asyncio
import sys
from asyncio.subprocess import PIPE, Process

import pytest

from shared.processes import kill
from tests.lives import pid_has_ended
from tests.waiting import eventually

FLOOD = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
FORKED = "import os, time\nchild = os.fork()\nif child: os.write(1, b'%d\\n' % child)\ntime.sleep(600)"


async def started(code: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, start_new_session=True
    )


@pytest.mark.timeout(120)
async def test_a_process_whose_output_nobody_reads_is_killed():
    process = await started(FLOOD)
    assert process.stdout is not None
    await process.stdout.readexactly(1)

    await kill(process)

    assert process.returncode is not None


@pytest.mark.timeout(120)
async def test_a_reader_sees_the_end_of_a_process_that_is_killed():
    process = await started("import time; time.sleep(600)")
    assert process.stdout is not None
    reading = asyncio.create_task(process.stdout.readexactly(1))
    await asyncio.sleep(0)

    await kill(process)

    with pytest.raises(asyncio.IncompleteReadError):
        await reading


@pytest.mark.timeout(120)
async def test_what_a_process_started_ends_with_it_and_holds_nobody_up():
    process = await started(FORKED)
    assert process.stdout is not None
    child = int(await process.stdout.readline())

    await kill(process)
    await kill(process)

    await eventually(lambda: pid_has_ended(child))
