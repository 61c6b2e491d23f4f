"""Maintenance changes a table between two runs of it, where it waits for that."""

import asyncio
from uuid import UUID

from contracts.names import Qualified
from services.runner.gaps import Gaps

ORDERS = Qualified.parse("default.bronze.orders")
RUN = UUID(int=1)
OTHERS = Qualified.parse("default.bronze.others")


async def test_a_run_leaves_a_gap_for_maintenance_that_waits_and_goes_on_after_it() -> None:
    gaps, done = Gaps(), []

    async def maintain() -> None:
        with gaps.wanted(ORDERS) as gap:
            await gap.has_begun.wait()
            done.append("maintained")

    maintaining = asyncio.create_task(maintain())
    await asyncio.sleep(0)
    await gaps.leave(ORDERS, RUN)
    done.append("ended")
    await maintaining

    assert done == ["maintained", "ended"]


async def test_a_run_of_a_table_that_nobody_maintains_ends_at_once() -> None:
    gaps = Gaps()

    with gaps.wanted(OTHERS) as gap:
        await gaps.leave(ORDERS, RUN)

        assert not gap.has_begun.is_set()


async def test_maintenance_that_takes_long_does_not_keep_a_run_from_its_end() -> None:
    gaps = Gaps()

    with gaps.wanted(ORDERS) as gap:
        async with asyncio.timeout(10):
            await gaps.leave(ORDERS, RUN)

        assert gap.has_begun.is_set()
