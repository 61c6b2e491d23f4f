"""The whole platform on servers of its own, and a user of its API."""

from collections.abc import AsyncIterator

import httpx
import pytest

from infra.services import SERVICES, serving
from infra.stacks.stack import Stack
from tests.client import Client, client, unique
from tests.stacks import StackIn


@pytest.fixture(scope="module")
async def platform(stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, str]]:
    async with (
        stack_in(tmp_path_factory.mktemp("platform")) as stack,
        serving(SERVICES, stack.settings) as running,
    ):
        yield stack, running["gateway"]


@pytest.fixture(scope="module")
async def user(platform: tuple[Stack, str]) -> AsyncIterator[Client]:
    stack, url = platform
    async with client(stack.settings, url) as user:
        yield user


@pytest.fixture
def http(user: Client) -> httpx.AsyncClient:
    return user.http


@pytest.fixture(scope="module")
async def flights(user: Client) -> str:
    """A table with a row of each interesting type."""
    sql = """
    select
      range::int as id,
      9007199254740993 + range as big,
      1.5::decimal(10,2) as price,
      date '2026-01-02' as day,
      timestamptz '2026-01-02 03:04:05+00' as at,
      case when range = 0 then 'nan'::double else 0.5 end as ratio,
      [1, 2] as list,
      {'a': 1} as struct,
      'x'::blob as blob
    from range(3)
    """
    pipeline = await user.pipeline(f"default.bronze.{unique('flights')}", sql)
    await user.succeeded(await user.run(pipeline))
    return pipeline
