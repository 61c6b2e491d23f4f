"""Connecting to NATS goes on, whatever stands at its address."""

import asyncio
from collections.abc import Callable

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


async def test_who_looks_for_nats_stops_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Callable[[], int]
) -> None:
    monkeypatch.setattr(bus, "CONNECT_SECONDS", 3600.0)
    # With so many, nats-py is nearly always between two of them, where Python 3.11 may lose a cancellation.
    addresses = [f"nats://127.0.0.1:{unused_tcp_port_factory()}" for _ in range(30)]
    settings = Settings(nats_urls=addresses, nats_passwords={"catalog": "secret"})
    for milliseconds in range(1, 21):
        starting = asyncio.create_task(connect(settings, "catalog").running().__aenter__())
        await asyncio.wait({starting}, timeout=milliseconds / 1000)
        starting.cancel()

        await asyncio.wait({starting}, timeout=30)
        assert starting.cancelled()
