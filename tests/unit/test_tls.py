"""Encrypted connections, as far as no server is needed."""

import logging

import pytest

from shared.tls import trusting


def test_what_asyncio_says_of_each_encrypted_connection_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    trusting(None)

    logging.getLogger("asyncio").warning("returning true from eof_received() has no effect when using ssl")
    logging.getLogger("asyncio").warning("Executing <Task> took 2 seconds")

    assert [record.getMessage() for record in caplog.records] == ["Executing <Task> took 2 seconds"]
