"""What only the lakehouse on PostgreSQL does."""

import pytest

from shared.errors import Unavailable
from shared.lakehouse.connect import lakehouse
from tests.stacks import StackIn


async def test_a_reader_that_comes_first_is_told_so(
    stack_in: StackIn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with (
        stack_in(tmp_path_factory.mktemp("empty"), ["postgres"]) as stack,
        lakehouse(stack.settings, "query") as reader,
    ):
        with pytest.raises(Unavailable, match="no tables yet"):
            await reader.tables()

        async with lakehouse(stack.settings, "runner"):
            assert await reader.tables() == {}
            assert await reader.head() == "0"
