"""What a process says goes through a pipe message by message, and nobody waits for what is no message."""

import asyncio

import pytest

from services.runner.frames import Ready, frame, read_from_process


async def test_messages_are_read_one_by_one() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(frame(Ready()) + frame(Ready()))
    stream.feed_eof()

    assert [await read_from_process(stream) for _ in range(2)] == [Ready(), Ready()]
    with pytest.raises(asyncio.IncompleteReadError):
        await read_from_process(stream)


@pytest.mark.parametrize("said", [b"garbage", b"\0\0\0\x02{}", frame(Ready()).replace(b"ready", b"reedy")])
async def test_what_is_no_message_is_not_waited_for(said: bytes) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(said)

    with pytest.raises(ValueError):  # noqa: PT011  # any of them: of lengths, of JSON and of pydantic
        await asyncio.wait_for(read_from_process(stream), 5)
