"""Looks at code without a run: previews, and tests on what main holds. Nothing is claimed, and nothing written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from contracts.landing import ClaimedFile, FileState, FindZone, ListFiles, ListSamples
from contracts.messages import Message, derived_id
from contracts.names import Qualified
from contracts.pipelines import PinDraft
from contracts.previews import Preview, PreviewPipeline, RunTests, Sent, Verdicts
from contracts.runs import LogLine
from services.runner import domain, report
from services.runner.domain import FailureKind
from services.runner.frames import (
    AskFiles,
    AskLocations,
    AskSimilar,
    Configured,
    Failed,
    Locations,
    Logged,
    Looked,
    Previewed,
    PreviewOrder,
    Tested,
    TestOrder,
    ZoneFiles,
)
from services.runner.keys import namespaces_named
from services.runner.known import similar
from services.runner.lending import Lending
from services.runner.locating import locate
from services.runner.pool import Process, ProcessLost
from services.runner.problems import AuthorError
from services.runner.python.source import PYTHON_FILE
from services.runner.resources import Resources
from services.runner.watch import Allowance, Broken, watched
from shared.background import end
from shared.chunks import left, send_chunks
from shared.errors import Invalid, NotFound
from shared.lakehouse.port import MAIN
from shared.turns import turn

_QUEUE_SECONDS: Final = 20.0
"""How long somebody waits for others who look."""
_MOST_FILES: Final = 200
"""Of a zone without samples, the newest ones."""
_FOLLOWING: Final = {"compile": "plan", "plan": "query", "query": "count", "count": "count"}
"""The phases of a preview."""


class Looks:
    """Those who look at code now, as many at a time as there are workers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._free = asyncio.Semaphore(resources.settings.runner_workers)

    async def preview(self, query: PreviewPipeline) -> Sent:
        """Run a draft, or code sent along, and send what it gives."""
        async with self._listened(query.inbox) as is_left, self._turn():
            look = Look(self._resources, query.pipeline, tuple(query.sample_files or ()))
            said = await self._said(look, await self._preview_order(look, query), is_left)
        if missing := look.samples_not_found:
            raise Invalid(f"no landing zone that {query.pipeline} reads has a sample {missing[0]!r}")
        return await self._send(query.inbox, look.previewed(said))

    async def run_tests(self, query: RunTests) -> Sent:
        """Run the tests of a draft on main, and send how they judge it."""
        async with self._listened(query.inbox) as is_left, self._turn():
            look = Look(self._resources, query.pipeline)
            files = await look.draft()
            order = files if isinstance(files, Broken) else TestOrder(pipeline=query.pipeline, files=files)
            said = await self._said(look, order, is_left)
        return await self._send(query.inbox, verdicts(said))

    async def _preview_order(self, look: "Look", query: PreviewPipeline) -> PreviewOrder | Broken:
        files = await look.draft()
        if isinstance(files, Broken):
            return files
        if query.code is not None:
            main = "pipeline.py" if "pipeline.py" in files and "pipeline.sql" not in files else "pipeline.sql"
            files = {**files, main: query.code.removeprefix("\ufeff")}
        return PreviewOrder(pipeline=query.pipeline, files=files, limit=query.limit)

    async def _said(
        self, look: "Look", order: PreviewOrder | TestOrder | Broken, is_left: asyncio.Event
    ) -> "Looked | Tested | Broken":
        """What a process makes of an order, or why it makes nothing of it."""
        if isinstance(order, Broken):
            return order
        if is_left.is_set():
            return Broken(FailureKind.CANCELLED, "nobody waits for it any more")
        try:
            async with self._resources.pool.process() as process:
                conversing = look.converse(process, order)
                said = await watched(process, conversing, look.allowance, is_left, look.note)
                if isinstance(said, Failed) and said.kind in (FailureKind.INTERNAL, FailureKind.MEMORY):
                    raise look.broken(said)
        except Broken as broken:
            return broken
        except ProcessLost as lost:
            return Broken(FailureKind.LOST_PROCESS, str(lost))
        return look.broken(said) if isinstance(said, Failed) else said

    async def _send(self, inbox: str, answer: Message) -> Sent:
        body = answer.model_dump_json().encode()
        await send_chunks(self._resources.bus, inbox, _once(body))
        return Sent(bytes=len(body))

    @asynccontextmanager
    async def _listened(self, inbox: str) -> AsyncIterator[asyncio.Event]:
        """What is set once nobody listens on an inbox any more."""
        is_left = asyncio.Event()

        async def notice() -> None:
            await left(self._resources.bus, inbox)
            is_left.set()

        noticing = asyncio.create_task(notice())
        try:
            yield is_left
        finally:
            await end({noticing})

    def _turn(self) -> AbstractAsyncContextManager[None]:
        refusal = "too many previews are going on already: try again later"
        return turn(self._free, within_seconds=_QUEUE_SECONDS, otherwise=refusal)


@dataclass
class Look:
    """One look at a pipeline's code, and what is known of it so far."""

    resources: Resources
    pipeline: str
    sample_files: tuple[str, ...] = ()
    """Samples to read in place of all."""
    _lines: list[LogLine] = field(default_factory=list)
    _warnings: list[str] = field(default_factory=list)
    _parts: list[Previewed] = field(default_factory=list)
    _found: set[str] = field(default_factory=set)
    _head: str | None = None

    def __post_init__(self) -> None:
        self.allowance = Allowance(
            self.resources.pool.memory_limit_bytes,
            timeout_seconds=self.resources.settings.preview_timeout_seconds,
            timeout_name="preview_timeout_seconds",
        )

    async def draft(self) -> dict[str, str] | Broken:
        """The files of the draft by path, or why they are none."""
        pins = await self.resources.bus.ask(PinDraft(pipeline=self.pipeline))
        try:
            return await self.resources.code.read(Qualified.parse(self.pipeline), pins.files)
        except AuthorError as error:
            return Broken(FailureKind.COMPILE, str(error))

    def note(self, line: str) -> None:
        """Note what happened to the process."""
        self._warnings.append(line)

    def broken(self, said: Failed) -> Broken:
        """What the failure of a process is told as."""
        return self.allowance.used_up(said.error) if said.kind is FailureKind.MEMORY else Broken(said.kind, said.error)

    @property
    def samples_not_found(self) -> list[str]:
        """The samples that were asked for, and that no zone has."""
        return [name for name in self.sample_files if name not in self._found]

    async def converse(self, process: Process, order: PreviewOrder | TestOrder) -> Looked | Tested | Failed:
        """Give a process its order, answer what it asks, and hear what comes of it."""
        # What an author's Python leaves behind in its process is not for the next one.
        process.is_spent = isinstance(order, PreviewOrder) and PYTHON_FILE in order.files
        namespace = Qualified.parse(self.pipeline).namespace
        zones_of = {namespace, *namespaces_named(order.files, self.resources.settings.s3_bucket)}
        lending = Lending(self.resources.keys, process, name=f"look-{self.pipeline}"[:64], zones_of=zones_of)
        try:
            return await self._answer(process, order, lending)
        finally:
            await lending.end()

    async def _answer(
        self, process: Process, order: PreviewOrder | TestOrder, lending: Lending
    ) -> Looked | Tested | Failed:
        await process.send(order)
        while True:
            match await process.receive():
                case Logged(line=line):
                    self._lines.append(line)
                case Configured(memory_limit_bytes=limit):
                    self.allowance.memory_limit_bytes = limit
                case AskFiles() as question:
                    files = await self._files(question)
                    await lending.give(question.namespace if files.is_there else None)
                    await process.send(files)
                case AskLocations(tables=tables):
                    locations = await self._locate(tables)
                    await lending.give()
                    await process.send(locations)
                case AskSimilar() as question:
                    await process.send(await similar(self.resources, question, self._head or MAIN))
                case Previewed() as part:
                    self._parts.append(part)
                    if part.phase is not None:
                        self.allowance.phase = _FOLLOWING[part.phase.name]
                case Looked() | Tested() | Failed() as said:
                    return said
                case other:
                    raise Broken(FailureKind.INTERNAL, f"the process said {other.type!r}, which nobody waits for")

    def previewed(self, said: Looked | Tested | Broken) -> Preview:
        """All that is known in the end."""
        facts: dict[str, Any] = {}
        for part in self._parts:
            facts |= part.model_dump(exclude_none=True, exclude={"type", "warnings", "phase"})
            self._warnings += part.warnings
        phases = [part.phase for part in self._parts if part.phase is not None]
        if isinstance(said, Broken) and "rows" in facts:
            # The rows are what matters.
            self._warnings.append(f"the rows were not counted: {said.message}")
        elif isinstance(said, Broken):
            facts |= {"error": said.message[: report.LONGEST_ERROR], "error_kind": domain.error_kind(said.kind)}
        return Preview(**facts, phases=phases, logs=self._lines, warnings=self._warnings)

    async def _locate(self, tables: list[str]) -> Locations:
        """Where tables are on main, all at the same moment."""
        lakehouse = self.resources.lakehouse
        if self._head is None:
            self._head = await lakehouse.head()
        return await locate(lakehouse, self.resources.objects, tables, self._head)

    async def _files(self, question: AskFiles) -> ZoneFiles:
        """The samples of a zone, else its newest files."""
        namespace, name = question.namespace, question.zone
        try:
            zone = await self.resources.bus.ask(FindZone(namespace=namespace, name=name))
        except NotFound:
            return ZoneFiles(files=[], expected_schema="", last_file=None, is_there=False)
        files = await self._samples(namespace, name) or await self._landed(namespace, name)
        return ZoneFiles(files=files, expected_schema=zone.expected_schema, last_file=None)

    async def _samples(self, namespace: str, zone: str) -> list[ClaimedFile]:
        page = await self.resources.bus.ask(ListSamples(namespace=namespace, zone=zone, limit=_MOST_FILES))
        wanted = [sample for sample in page.files if sample.path in self.sample_files]
        self._found |= {sample.path for sample in wanted}
        folder = f"{namespace}/landing/{zone}/_samples/"
        return [
            ClaimedFile(
                file_id=derived_id("sample", folder, sample.path),
                filename=sample.path,
                key=folder + sample.path,
                version_id="",
                size_bytes=sample.size,
            )
            for sample in wanted or page.files
        ]

    async def _landed(self, namespace: str, zone: str) -> list[ClaimedFile]:
        page = await self.resources.bus.ask(ListFiles(namespace=namespace, zone=zone, limit=_MOST_FILES))
        if page.total > len(page.files):
            self._warnings.append(f"only the newest {len(page.files)} files of {namespace}/{zone} were read")
        folder = f"{namespace}/landing/{zone}/"
        return [
            ClaimedFile(
                file_id=file.id, filename=file.filename, key=file.s3_path, version_id="", size_bytes=file.size_bytes
            )
            for file in page.files
            if file.state in (FileState.LANDED, FileState.PROCESSED) and file.s3_path == folder + file.filename
        ]


def verdicts(said: Looked | Tested | Broken) -> Verdicts:
    """How tests judge main, or why none could run."""
    if isinstance(said, Broken):
        return Verdicts(error=said.message[: report.LONGEST_ERROR], error_kind=domain.error_kind(said.kind))
    assert isinstance(said, Tested), "an order for tests is answered by how they judge"
    counted = report.counts(said.results)
    return Verdicts(results=said.results, **counted.model_dump())


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
