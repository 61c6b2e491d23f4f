"""What only Nessie does: answers that are lost, lists in pages, tokens that allow little, closings left half done."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from pyiceberg.catalog.rest import RestCatalog
from yarl import URL

from contracts.names import Qualified
from infra.servers.nessie import TOKEN_ROLES
from infra.stacks.stack import Stack
from services.runner.ending import look
from shared.errors import AlreadyExists, Forbidden, Unavailable
from shared.lakehouse.catalogs import catalogs
from shared.lakehouse.connect import lakehouse
from shared.lakehouse.files import s3_properties
from shared.lakehouse.nessie.api import NessieApi, session
from shared.lakehouse.port import BEGINNING, MAIN, BranchClosed, Lakehouse, Merged
from shared.settings import Settings
from tests.tables import Catalogs, append, merged, new_branch, new_table, read, rows


class Line:
    """A way to Nessie on which answers can be lost after what was asked for is done."""

    def __init__(self) -> None:
        self.url = ""
        self.loses: Callable[[str, str], bool] = lambda _method, _path: False
        self.lost: list[str] = []
        self.logs: list[list[str]] = []
        """The commits that each answer to a question for a log held."""


@pytest.fixture
async def line(stack: Stack) -> AsyncIterator[Line]:
    async with line_to(stack) as line:
        yield line


@asynccontextmanager
async def line_to(stack: Stack, encryption: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    line = Line()

    async def carry(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        url = URL(stack.settings.nessie_url + request.raw_path, encoded=True)
        async with nessie.request(request.method, url, data=body or None, headers=headers) as answer:
            content = await answer.read()
        if request.path.endswith("/history") and answer.ok:
            line.logs.append([entry["commitMeta"]["hash"] for entry in json.loads(content)["logEntries"]])
        if line.loses(request.method, unquote(request.raw_path)):
            line.lost.append(request.raw_path)
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=answer.status, body=content, content_type="application/json")

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", carry)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as nessie:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=encryption)
        await site.start()
        line.url = f"{'https' if encryption else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield line
        await runner.cleanup()


def over(stack: Stack, line: Line) -> Settings:
    return stack.settings.model_copy(update={"nessie_url": line.url})


@asynccontextmanager
async def api(settings: Settings, role: str) -> AsyncIterator[NessieApi]:
    async with session(settings.nessie_token(role)) as connections:
        yield NessieApi(connections, settings.nessie_url, settings.nessie_page_size)


async def test_a_merge_whose_answer_is_lost_is_found(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified
) -> None:
    branch, run_id = await new_branch(lake), uuid4()
    append(on(branch), table, 1)
    line.loses = lambda method, path: method == "POST" and path.endswith("/history/merge")

    async with lakehouse(over(stack, line), "runner") as far:
        merge = await far.merge(branch, run_id, 1)

    assert len(line.lost) == 1
    assert merge is not None
    assert merge == await lake.find_merge(run_id, BEGINNING)
    assert read(on(MAIN), table) == [1]
    assert await lake.is_closed(branch)
    with pytest.raises(BranchClosed):
        await lake.merge(branch, None, None)


async def test_a_merge_that_did_not_happen_is_not_taken_for_one(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified
) -> None:
    branch, run_id = await new_branch(lake), uuid4()
    append(on(branch), table, 1)
    # The look afterwards gets no answer either.
    line.loses = lambda method, path: "/history" in path

    async with lakehouse(over(stack, line), "runner") as far:
        with pytest.raises(Unavailable):
            await far.merge(branch, run_id, 1)
        with pytest.raises(Unavailable):
            await far.find_merge(run_id, BEGINNING)


async def test_a_merge_reads_no_more_of_the_log_than_it_is_about(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified
) -> None:
    for number in range(3):
        await merged(lake, on, table, number)
    head, branch = await lake.head(), await new_branch(lake)
    append(on(branch), table, 3)

    async with lakehouse(over(stack, line), "runner") as far:
        merge = await far.merge(branch, uuid4(), 1, since=head)

    # The look whether the run is on main shows the commit at which it ends; the other answer is the merge.
    assert merge is not None
    assert line.logs == [[head], [merge.snapshot]]


async def test_a_commit_whose_answer_is_lost_is_found(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified
) -> None:
    branch, other, gone = await new_branch(lake), new_table(), new_table()
    append(on(branch), table, 1)
    line.loses = lambda method, path: method == "POST" and path.endswith("/history/commit")

    def write() -> None:
        with catalogs(over(stack, line), "runner") as far:
            append(far(branch), table, 2)
            append(far(branch), other, 3)
            far(branch).drop_table(gone)

    append(on(branch), gone, 1)
    await asyncio.to_thread(write)

    assert len(line.lost) == 3
    assert read(on(branch), table) == [1, 2]
    assert read(on(branch), other) == [3]
    assert not on(branch).table_exists(gone)


async def test_a_commit_that_is_not_found_after_its_answer_was_lost_gives_the_branch_up(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified
) -> None:
    branch = await new_branch(lake)
    # The look afterwards gets no answer either.
    line.loses = lambda _method, path: path.endswith("/history/commit") or ("/contents" in path and bool(line.lost))

    def write() -> None:
        with catalogs(over(stack, line), "runner") as far:
            append(far(branch), table, 1)

    with pytest.raises(Unavailable):
        await asyncio.to_thread(write)


async def test_other_engines_read_and_write_tables_through_nessie(
    stack: Stack, lake: Lakehouse, on: Catalogs, table: Qualified
) -> None:
    branch = await new_branch(lake)
    append(on(branch), table, 1)
    append(on(branch), table, 2)

    def work() -> None:
        rest = RestCatalog(
            "nessie",
            uri=f"{stack.settings.nessie_url}/iceberg/{branch}",
            token=stack.settings.nessie_token("runner"),
            **s3_properties(stack.settings, "runner"),
        )
        assert read(rest, table) == [1, 2]
        rest.load_table(table).append(rows(3))
        assert read(rest, table) == [1, 2, 3]

    await asyncio.to_thread(work)

    append(on(branch), table, 4)
    assert read(on(branch), table) == [1, 2, 3, 4]


@pytest.mark.parametrize("lost", range(1, 7))
async def test_a_closing_that_is_broken_off_is_done_by_the_next(
    stack: Stack, lake: Lakehouse, on: Catalogs, line: Line, table: Qualified, lost: int
) -> None:
    branch = await new_branch(lake)
    append(on(branch), table, 1)
    seen = 0

    def loses(method: str, _path: str) -> bool:
        nonlocal seen
        seen += method != "GET"
        return method != "GET" and seen == lost

    line.loses = loses
    async with lakehouse(over(stack, line), "runner") as far:
        try:
            await far.close_branch(branch)
        except Unavailable:
            [found] = await lake.branches(branch)
            assert found.name == branch
            await far.close_branch(branch)

    [found] = await lake.branches(branch)
    assert found.closed_at is not None
    assert await lake.is_closed(branch)
    assert read(on(branch), table) == [1]
    with pytest.raises(BranchClosed):
        await lake.create_branch(branch)
    with pytest.raises(BranchClosed):
        await lake.merge(branch, uuid4(), 1)


async def test_a_branch_that_may_have_been_made_is_not_made_again(stack: Stack, lake: Lakehouse, line: Line) -> None:
    name = f"run-{uuid4()}-1"
    line.loses = lambda method, path: method == "POST" and path.partition("?")[0].endswith("/trees")

    async with lakehouse(over(stack, line), "runner") as far:
        with pytest.raises(Unavailable):
            await far.create_branch(name)

    with pytest.raises(AlreadyExists):
        await lake.create_branch(name)


def in_pages_of(size: int, stack: Stack) -> AbstractAsyncContextManager[Lakehouse]:
    return lakehouse(stack.settings.model_copy(update={"nessie_page_size": size}), "runner")


async def test_lists_are_read_to_their_end_page_by_page(stack: Stack, lake: Lakehouse, on: Catalogs) -> None:
    run = f"run-{uuid4()}"
    before = await lake.head()
    table, runs = new_table(), [uuid4() for _ in range(5)]
    merges = [await merged(lake, on, table, number, run_id=run_id) for number, run_id in enumerate(runs)]
    for _ in range(3):
        await merged(lake, on, new_table(), 1)
    for attempt in range(1, 6):
        await lake.create_branch(f"{run}-{attempt}")
    wide = await new_branch(lake)
    for _ in range(3):
        append(on(wide), new_table(), 1)

    async with in_pages_of(2, stack) as narrow:
        assert await narrow.tables() == await lake.tables()
        assert await narrow.namespaces() == await lake.namespaces()
        assert [branch.name for branch in await narrow.branches(f"{run}-")] == [f"{run}-{n}" for n in range(1, 6)]
        assert [change.run_id for change in await narrow.history(table, 10)] == runs[::-1]
        assert await narrow.find_merge(runs[0], before) == merges[0]
        assert {found.location for found in await narrow.past_metadata(None)} >= {
            location for merge in merges for location in merge.tables.values()
        }
        wide_merge = await narrow.merge(wide, uuid4(), 1)
        assert wide_merge is not None
        assert len(wide_merge.tables) == 3
    # All tables of all branches, also of those that other tests have left: in two or three pages each.
    async with in_pages_of(max(2, len(await lake.tables()) // 2), stack) as halved:
        assert await halved.live_metadata() == await lake.live_metadata()


async def test_no_token_allows_more_than_its_work(stack: Stack, lake: Lakehouse, on: Catalogs) -> None:
    table, branch = new_table(), await new_branch(lake)
    append(on(branch), table, 1)
    async with api(stack.settings, "query") as reader:
        main = (await reader.get(f"/trees/{MAIN}"))["reference"]
        head = (await reader.get(f"/trees/{branch}"))["reference"]["hash"]
    drop = {"commitMeta": {"message": "x"}, "operations": [{"type": "DELETE", "key": {"elements": list(table)}}]}
    namespace = {
        "commitMeta": {"message": "x"},
        "operations": [
            {"type": "PUT", "key": {"elements": ["x"]}, "content": {"type": "NAMESPACE", "elements": ["x"]}}
        ],
    }
    merge = {"fromRefName": branch, "fromHash": head, "commitMeta": {"message": "x"}}
    made = {"name": f"run-{uuid4()}-1", "type": "BRANCH"}
    asked = {
        "merge main": ("POST", f"/trees/{MAIN}@{main['hash']}/history/merge", merge, {}),
        "commit to main": ("POST", f"/trees/{MAIN}@{main['hash']}/history/commit", namespace, {}),
        "move main": ("PUT", f"/trees/{MAIN}@{main['hash']}", main | {"hash": head}, {"type": "BRANCH"}),
        "commit to a branch": ("POST", f"/trees/{branch}@{head}/history/commit", drop, {}),
        "make a branch": ("POST", "/trees", main, made),
        "delete a branch": ("DELETE", f"/trees/{branch}@{head}", None, {"type": "BRANCH"}),
    }
    allowed = {
        "runner": {"commit to a branch", "make a branch", "delete a branch"},
        "merge": {"merge main", "commit to main"},
    }

    for role in TOKEN_ROLES:
        for what in asked.keys() - allowed.get(role, set()):
            method, path, body, query = asked[what]
            async with api(stack.settings, role) as client:
                with pytest.raises(Forbidden):
                    await client.ask(method, path, body=body, query=query)
    async with session("not.a.token") as connections:
        with pytest.raises(Forbidden):
            await NessieApi(connections, stack.settings.nessie_url, 10).get(f"/trees/{MAIN}")
    assert await lake.location(table) is None


async def test_a_merge_that_closing_did_not_stop_shows_within_the_time_that_is_said(
    stack: Stack, lake: Lakehouse, on: Catalogs
) -> None:
    assert lake.merges_settle_within == timedelta(seconds=2 * stack.settings.nessie_commit_timeout_seconds)
    for _ in range(10):
        branch, run_id = await new_branch(lake), uuid4()
        append(on(branch), new_table(), 1)

        merging = asyncio.create_task(lake.merge(branch, run_id, 1))
        await lake.close_branch(branch)
        outcome = (await asyncio.gather(merging, return_exceptions=True))[0]

        assert isinstance(outcome, Merged | BranchClosed)
        assert await lake.find_merge(run_id, BEGINNING) == (outcome if isinstance(outcome, Merged) else None)


async def test_main_is_looked_at_for_certain_when_no_merge_can_come_any_more(stack: Stack, lake: Lakehouse) -> None:
    run_id, head, clock = uuid4(), await lake.head(), asyncio.get_running_loop().time
    await lake.create_branch(f"run-{run_id}-1")
    began = clock()
    await lake.close_branch(f"run-{run_id}-1")

    async with lakehouse(stack.settings.model_copy(update={"nessie_commit_timeout_seconds": 1}), "runner") as soon:
        assert await look(soon, run_id, 1, head, answered=frozenset()) is None
        assert clock() - began > 1.9
    async with lakehouse(stack.settings.model_copy(update={"nessie_commit_timeout_seconds": 1800}), "runner") as late:
        assert await look(late, run_id, 1, head, answered=frozenset({1})) is None


async def test_nessie_is_spoken_to_over_tls_if_it_shows_who_it_is(
    stack: Stack, lake: Lakehouse, table: Qualified, tmp_path: Path
) -> None:
    branch = await new_branch(lake)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nessie"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    encryption = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    encryption.load_cert_chain(certificate, key)

    async with line_to(stack, encryption) as line:
        known = over(stack, line).model_copy(update={"nessie_ca_file": str(certificate)})

        def write(settings: Settings) -> None:
            with catalogs(settings, "runner") as far:
                append(far(branch), table, 1)

        await asyncio.to_thread(write, known)
        async with lakehouse(known, "runner") as far:
            assert await far.merge(branch, uuid4(), 1) is not None
        with pytest.raises(Unavailable):
            await asyncio.to_thread(write, over(stack, line))
        async with lakehouse(over(stack, line), "runner") as far:
            with pytest.raises(Unavailable):
                await far.head()
