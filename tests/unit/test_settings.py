"""Settings that cannot be kept are refused."""

import pytest
from pydantic import ValidationError

from shared.settings import Settings


@pytest.mark.parametrize("name", ["query_timeout_seconds", "preview_timeout_seconds"])
def test_a_limit_that_is_longer_than_whoever_asks_waits_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 60"):
        Settings.model_validate({name: 200})
