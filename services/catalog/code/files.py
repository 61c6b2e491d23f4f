"""The files of drafts, listed over all pipelines."""

import asyncpg

from contracts.files import CodeFile, CodeFiles, ListCodeFiles
from services.catalog.code.paths import check_prefix, exclusions, file_type, is_excluded, is_file, listing_prefix
from services.catalog.code.store import namespaces, pipelines
from shared.object_store import ObjectStore
from shared.pages import cursor_after, fitting


async def list_files(db: asyncpg.Pool, objects: ObjectStore, query: ListCodeFiles) -> CodeFiles:
    """The current files of living pipelines whose paths begin with the prefix."""
    check_prefix(query.prefix)
    start = query.start
    excluded = exclusions(query.exclude)
    found = [file for file in await _files(db, objects, query.prefix) if not is_excluded(file.path, excluded)]
    files = fitting(found[start : start + query.limit])
    return CodeFiles(files=files, total=len(found), next_cursor=cursor_after(query, files, len(found)))


async def _files(db: asyncpg.Pool, objects: ObjectStore, prefix: str) -> list[CodeFile]:
    folders = await pipelines.folders(db, prefix)
    found = []
    for namespace in await namespaces.names(db):
        listed = listing_prefix(namespace, prefix)
        if listed is None or not any(folder.startswith(f"{namespace}/") for folder in folders):
            continue
        async for version in objects.versions(listed):
            folder = "/".join(version.key.split("/")[:4]) + "/"
            file = version.key.removeprefix(folder)
            if version.is_latest and not version.is_deletion and folder in folders and is_file(file):
                found.append(
                    CodeFile(
                        path=version.key,
                        size=version.size,
                        modified=version.modified_at,
                        type=file_type(file),
                        version_id=version.version_id,
                    )
                )
    return sorted(found, key=lambda file: file.path)
