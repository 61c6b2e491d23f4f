"""What lies in the folder of a pipeline, and at which versions."""

from services.catalog.code.domain import Draft, DraftFile
from services.catalog.code.paths import is_file
from shared.object_store import ObjectStore


async def read_draft(objects: ObjectStore, folder: str) -> Draft:
    """What a pipeline's folder, an S3 prefix with a slash at its end, holds now and held before."""
    files: dict[str, DraftFile] = {}
    contents: dict[tuple[str, str], str] = {}
    ignored: list[str] = []
    async for version in objects.versions(folder):
        file = version.key.removeprefix(folder)
        if version.is_deletion or file.endswith("/") or not file:
            continue
        if not is_file(file):
            if version.is_latest:
                ignored.append(file)
            continue
        contents[file, version.version_id] = f"{version.etag} {version.size}"
        if version.is_latest:
            files[file] = DraftFile(file, version.version_id, version.size, version.modified_at)
    return Draft(files, contents, ignored)


async def draft_pins(objects: ObjectStore, folder: str) -> dict[str, str]:
    """File below the folder → S3 version id, of what is current; `Unprocessable` if there are too many files."""
    return (await read_draft(objects, folder)).pins
