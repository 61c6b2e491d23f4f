"""Connecting to NATS goes on, whatever stands at its address."""

import asyncio

import pytest

from shared import bus
from shared.bus import connect
from shared.settings import Settings
from tests.waiting import eventually

GREETING = b'INFO {"server_id":"mute","version":"2.15.1","max_payload":1048576,"tls_required":true}\r\n'


async def test_a_server_that_does_not_shake_hands_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "CONNECT_SECONDS", 6.0)
    callers: list[asyncio.StreamWriter] = []

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)
        writer.write(GREETING)

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        mine = connect(Settings(nats_urls=[f"tls://127.0.0.1:{port}"], nats_passwords={"catalog": "secret"}), "catalog")
        running = mine.running()
        starting = asyncio.create_task(running.__aenter__())
        try:
            await eventually(lambda: len(callers) > 1)
        finally:
            starting.cancel()
            await asyncio.wait({starting})
            for writer in callers:
                writer.close()
