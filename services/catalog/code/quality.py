"""Quality tests of drafts: files with a header."""

import asyncio
from collections.abc import Collection
from typing import Final

import asyncpg

from contracts.files import fits_into_a_message
from contracts.names import Qualified
from contracts.quality import (
    CreateQualityTest,
    ListQualityResults,
    ListQualityTests,
    QualityTest,
    QualityTestCreated,
    QualityTests,
    RecordedResult,
    RecordedResults,
)
from services.catalog.code import drafts
from services.catalog.code.domain import DraftFile
from services.catalog.code.headers import read_header, with_header
from services.catalog.code.paths import CodePath, code_path, file_of_test, name_of_test
from services.catalog.code.pins import read_draft
from services.catalog.code.store import quality as store
from shared.errors import AlreadyExists, Invalid, NotFound, Unprocessable
from shared.object_store import ObjectStore
from shared.pages import MAX_PAGE_BYTES, cursor_after, fits, fitting

_READ_AT_ONCE: Final = 10


async def list_tests(db: asyncpg.Pool, objects: ObjectStore, query: ListQualityTests) -> QualityTests:
    """The tests of a pipeline's draft, by name."""
    pipeline = await drafts.living(db, Qualified.parse(query.pipeline))
    start = query.start
    draft = await read_draft(objects, pipeline.shown.s3_path)
    files = [draft.files[file] for file in sorted(draft.files) if name_of_test(file)]
    wanted = _first_of_a_page(files[start : start + query.limit])
    tests = fitting(await _read(objects, pipeline.shown.s3_path, wanted, pipeline.shown.published_versions))
    return QualityTests(tests=tests, total=len(files), next_cursor=cursor_after(query, tests, len(files)))


async def create_test(db: asyncpg.Pool, objects: ObjectStore, query: CreateQualityTest) -> QualityTestCreated:
    """Write the file of a new test."""
    path = _path(query.pipeline, query.name)
    sql = with_header(
        query.sql,
        severity=query.severity,
        description=query.description,
        tags=query.tags,
        remediation=query.remediation,
    )
    try:
        fits_into_a_message(sql)
    except ValueError as error:
        raise Invalid(str(error)) from error
    if await drafts.write_new_file(db, objects, path, sql) is None:
        raise AlreadyExists(f"{query.pipeline} has a test {query.name!r} already")
    return QualityTestCreated(name=query.name, severity=read_header(sql).severity, path=path.key)


async def delete_test(db: asyncpg.Pool, objects: ObjectStore, pipeline: str, name: str) -> None:
    """Delete the file of a test."""
    try:
        await drafts.delete_file(db, objects, _path(pipeline, name))
    except Invalid:
        # What cannot be the name of a test is the name of none.
        raise NotFound(f"{pipeline} has no test {name!r}") from None


async def list_results(db: asyncpg.Pool, query: ListQualityResults) -> RecordedResults:
    """How a test judged the runs of its pipeline."""
    pipeline = await drafts.living(db, Qualified.parse(query.pipeline))
    if not await store.is_known(db, pipeline.shown.id, query.name):
        raise NotFound(f"{query.pipeline} has no test {query.name!r}, and never had one that ran")
    total = await store.count_results(db, pipeline.shown.id, query.name)
    found = await store.results(db, pipeline.shown.id, query.name, limit=query.limit, start=query.start)
    page = fitting([_in_short(one) for one in found])
    return RecordedResults(results=page, total=total, next_cursor=cursor_after(query, page, total))


def _in_short(result: RecordedResult) -> RecordedResult:
    """The result without what is long, where it is too long for a message: the run's report in S3 has all of it."""
    if fits(result):
        return result
    return result.model_copy(update={"sample_rows": [], "compiled_sql": None})


def _path(pipeline: str, name: str) -> CodePath:
    return code_path(Qualified.parse(pipeline).folder + file_of_test(name))


def _first_of_a_page(files: list[DraftFile]) -> list[DraftFile]:
    """As many of the first files as one answer may hold, one at least: more need not be read."""
    size = 0
    for count, file in enumerate(files):
        size += file.size
        if size > MAX_PAGE_BYTES and count > 0:
            return files[:count]
    return files


async def _read(
    objects: ObjectStore, folder: str, files: list[DraftFile], published: Collection[str]
) -> list[QualityTest]:
    turns = asyncio.Semaphore(_READ_AT_ONCE)

    async def read(file: DraftFile) -> QualityTest:
        async with turns:
            sql, error = await _text(objects, folder + file.file)
        header = read_header(sql)
        return QualityTest(
            name=name_of_test(file.file) or file.file,
            sql=sql,
            severity=header.severity,
            description=header.description,
            tags=list(header.tags),
            remediation=header.remediation,
            published=file.file in published,
            error=error,
        )

    return list(await asyncio.gather(*(read(file) for file in files)))


async def _text(objects: ObjectStore, key: str) -> tuple[str, str | None]:
    """What a file says, or that it says nothing, and why."""
    try:
        return (await drafts.read_text(objects, key)).content, None
    except (Unprocessable, NotFound) as error:
        return "", error.message
