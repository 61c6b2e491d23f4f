"""Text that comes in pieces is cut where its lines end, and nowhere else."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hypothesis import given
from hypothesis import strategies as st

from infra.cli.api import Api, Sent
from services.gateway.sse import sse
from services.gateway.uplink import uplink
from shared.lines import Lines
from shared.settings import Settings

ODD = "a\u2028b\x85c\u2029d"
"""One line, which Python takes for four."""


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut_into_pieces(texts: list[str], size: int) -> None:
    lines, content = Lines(), "".join(f"{text}\n" for text in texts).encode()

    found = [line for at in range(0, len(content), size) for line in lines.cut(content[at : at + size])]

    assert [*found, *lines.rest()] == texts


def test_the_last_line_needs_no_end_and_others_may_have_two() -> None:
    lines = Lines()

    assert lines.cut(b"a\r\n\nb") == ["a", ""]
    assert lines.rest() == ["b"]


async def test_a_line_of_a_log_is_one_line_whatever_is_in_it() -> None:
    with serving(f"{ODD}\n{ODD}\n", "application/jsonl") as url:
        async with uplink(Settings()) as store:
            assert [line async for line in store.lines(url)] == [ODD, ODD]


def test_an_event_is_one_event_whatever_is_in_it() -> None:
    with serving(f'id: 1\nevent: log\ndata: {{"message": "{ODD}"}}\n\n', "text/event-stream") as url:
        [event] = Api(url, None).events("/runs/1/logs", is_last=lambda event: True)

    assert event == Sent("log", {"message": ODD})


def test_no_client_takes_a_part_of_an_event_for_the_end_of_a_line() -> None:
    told = sse("log", {"message": ODD}, "1").decode()

    assert [line.partition(":")[0] for line in told.splitlines()] == ["id", "event", "data", ""]
    assert json.loads(told.splitlines()[2].removeprefix("data: ")) == {"message": ODD}


@contextmanager
def serving(content: str, media_type: str) -> Iterator[str]:
    """The address of a server that answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
