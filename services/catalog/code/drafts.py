"""Drafts: objects in the folder of a pipeline, and what its row says about them."""

import hashlib

import asyncpg

from contracts.files import MAX_CODE_BYTES, CodeFileContent
from contracts.messages import utc_now
from contracts.names import Qualified
from contracts.pipelines import CheckedTest, PipelineEdited
from services.catalog.code.headers import read_header
from services.catalog.code.paths import CodePath, name_of_test
from services.catalog.code.pins import read_draft
from services.catalog.code.store import pipelines, quality
from services.catalog.code.store.pipelines import KeptPipeline
from shared.database import Connection, transaction
from shared.errors import Conflict, NotFound, Unprocessable
from shared.object_store import ObjectStore, Stored
from shared.outbox import emit


async def living(db: asyncpg.Pool, name: Qualified) -> KeptPipeline:
    """The pipeline of this name; NotFound if there is none."""
    found = await pipelines.find(db, name)
    if found is None:
        raise NotFound(f"there is no pipeline {str(name)!r}")
    return found


async def refreshed(db: asyncpg.Pool, objects: ObjectStore, pipeline: KeptPipeline) -> KeptPipeline:
    """The same pipeline, with the truth about its draft: others than us may have written into its folder."""
    draft = await read_draft(objects, pipeline.shown.s3_path)
    is_dirty = draft.differs_from(pipeline.shown.published_versions)
    if is_dirty == pipeline.shown.draft_dirty:
        return pipeline
    await pipelines.note_draft(db, pipeline, draft_dirty=is_dirty)
    return KeptPipeline(pipeline.shown.model_copy(update={"draft_dirty": is_dirty}), pipeline.revision)


async def read_text(objects: ObjectStore, key: str) -> CodeFileContent:
    """A file of a pipeline; Unprocessable if it is too large for a message, or no text."""
    described = await objects.head(key)
    if described.size > MAX_CODE_BYTES:
        raise Unprocessable(f"{key!r} has {described.size} bytes, and only files up to {MAX_CODE_BYTES} are shown")
    content = await objects.get(key, described.version_id)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise Unprocessable(f"{key!r} is not UTF-8: byte {error.start} is {content[error.start]:#04x}") from error
    return CodeFileContent(
        path=key,
        content=text,
        size=described.size,
        modified=described.modified_at,
        version_id=version_of(described, key),
    )


async def write_file(db: asyncpg.Pool, objects: ObjectStore, path: CodePath, text: str, *, if_match: str | None) -> str:
    """Write a file of a draft if its version is the expected one, and say its new version."""
    pipeline = await living(db, path.pipeline)
    content = text.encode()
    if if_match is None:
        stored = await objects.put(path.key, content, content_type=_CONTENT_TYPE)
    else:
        stored = await _put_over(objects, path.key, content, if_match)
    return await _note_write(db, objects, pipeline, path, text, stored)


async def write_new_file(db: asyncpg.Pool, objects: ObjectStore, path: CodePath, text: str) -> str | None:
    """Write a file that a draft does not have yet, and say its version; None if it has it."""
    pipeline = await living(db, path.pipeline)
    stored = await put_new(objects, path.key, text)
    return None if stored is None else await _note_write(db, objects, pipeline, path, text, stored)


async def delete_file(db: asyncpg.Pool, objects: ObjectStore, path: CodePath) -> None:
    """Delete a file of a draft; NotFound if there is none."""
    pipeline = await living(db, path.pipeline)
    await objects.head(path.key)
    await objects.delete(path.key)
    await _note_edit(db, objects, pipeline, path, text=None)


async def put_new(objects: ObjectStore, key: str, text: str) -> Stored | None:
    """Write an object that does not exist yet; None if it does."""
    content = text.encode()
    try:
        return await objects.put(key, content, content_type=_CONTENT_TYPE, if_none_match="*")
    except Conflict:
        return await _ours(objects, key, content)


async def clear(db: Connection, objects: ObjectStore, folder: str) -> None:
    """Take what deleted pipelines left in a folder out of it; all versions stay readable.

    Their rows are locked meanwhile, so that nobody takes out what the next pipeline of the name puts in.
    """
    deleted = await pipelines.lock_uncleared(db, folder)
    if not deleted:
        return
    draft = await read_draft(objects, folder)
    for file in [*draft.files, *draft.ignored]:
        await objects.delete(folder + file)
    await pipelines.note_cleared(db, deleted, utc_now())


async def clear_all(db: asyncpg.Pool, objects: ObjectStore) -> None:
    """Clear the folders of all deleted pipelines."""
    for folder in await pipelines.uncleared_folders(db):
        async with transaction(db) as connection:
            await clear(connection, objects, folder)


def version_of(stored: Stored, key: str) -> str:
    """The version id of what was stored: publishing needs one of each file."""
    if stored.version_id is None:
        raise Unprocessable(f"the bucket keeps no versions, and {key!r} needs one: versioning has to be switched on")
    return stored.version_id


_CONTENT_TYPE = "text/plain; charset=utf-8"


async def _put_over(objects: ObjectStore, key: str, content: bytes, expected: str) -> Stored:
    try:
        found = await objects.head(key)
    except NotFound:
        raise Conflict(f"{key!r} is to be at version {expected!r}, but does not exist") from None
    if found.version_id != expected:
        raise Conflict(
            f"{key!r} is at version {found.version_id!r} by now, not {expected!r}",
            details={"version_id": found.version_id},
        )
    try:
        # The store knows no condition on versions; the same content under another version is no harm.
        return await objects.put(key, content, content_type=_CONTENT_TYPE, if_match=found.etag)
    except Conflict:
        ours = await _ours(objects, key, content)
        if ours is None:
            raise Conflict(f"{key!r} was changed by somebody else at this moment") from None
        return ours


async def _ours(objects: ObjectStore, key: str, content: bytes) -> Stored | None:
    """What is stored, if it is just this content: a first try whose answer was lost, then."""
    found = await objects.head(key)
    is_ours = found.etag == hashlib.md5(content, usedforsecurity=False).hexdigest()
    return found if is_ours else None


async def _note_write(
    db: asyncpg.Pool, objects: ObjectStore, pipeline: KeptPipeline, path: CodePath, text: str, stored: Stored
) -> str:
    version_id = version_of(stored, path.key)
    try:
        await _note_edit(db, objects, pipeline, path, text=text)
    except NotFound:
        # The pipeline was deleted meanwhile: its folder is left as empty as the deletion made it.
        await objects.delete(path.key, version_id)
        raise
    return version_id


async def _note_edit(
    db: asyncpg.Pool, objects: ObjectStore, pipeline: KeptPipeline, path: CodePath, *, text: str | None
) -> None:
    """Bring the row of a pipeline in step with its folder after an edit, and say so; `text` is None for a deletion."""
    edited_id = pipeline.shown.id
    while True:
        draft = await read_draft(objects, path.pipeline.folder)
        is_dirty = draft.differs_from(pipeline.shown.published_versions)
        now = utc_now()
        async with transaction(db) as connection:
            if await pipelines.note_edit(connection, pipeline, now, draft_dirty=is_dirty):
                await _note_test(connection, pipeline, path, text)
                await emit(
                    connection,
                    PipelineEdited(
                        occurred_at=now,
                        pipeline=str(path.pipeline),
                        pipeline_id=pipeline.shown.id,
                        path=path.file,
                        draft_dirty=is_dirty,
                    ),
                )
                return
        # Somebody else changed the pipeline since we looked: what we saw in its folder may be old.
        pipeline = await living(db, path.pipeline)
        if pipeline.shown.id != edited_id:
            raise NotFound(f"pipeline {str(path.pipeline)!r} was deleted meanwhile, and there is another of its name")


async def _note_test(db: Connection, pipeline: KeptPipeline, path: CodePath, text: str | None) -> None:
    name = name_of_test(path.file)
    if name is None:
        return
    if text is None:
        await quality.forget(db, pipeline.shown.id, name)
        return
    header = read_header(text)
    test = CheckedTest(
        name=name,
        path=path.file,
        severity=header.severity,
        description=header.description,
        tags=list(header.tags),
        remediation=header.remediation,
    )
    await quality.keep(db, pipeline.shown.id, pipeline.shown.s3_path, [test])
