"""Landing zones, the files in them and their samples."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import anyio
from litestar import Controller, delete, get, post, put
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, FromQuery, JSONBody, QueryParameter

from contracts.landing import (
    AddressSample,
    AddressUpload,
    ChangeZone,
    CreateZone,
    FileState,
    FindFile,
    FindZone,
    LandingFile,
    LandingFiles,
    ListFiles,
    ListSamples,
    ListZones,
    RecordUpload,
    RejectFile,
    RemoveFile,
    RemoveSample,
    RemoveZone,
    RetryFile,
    Sample,
    Samples,
    UploadAddress,
    Zone,
    Zones,
)
from contracts.messages import utc_now
from services.gateway.bodies import NewZone, Rejection, UploadRequest, ZoneChange
from services.gateway.dependencies import Asker, Noted, Page, Store
from services.gateway.uplink import Sent, Uplink

_ONE = "/{namespace:str}/{zone:str}"
_FILE = _ONE + "/files/{file_id:uuid}"
_MAX_BYTES = 5 * 1024**3 + 1024**2
"""5 GiB, and what a form has around them."""


@dataclass
class FileUpload:
    """A form with a file."""

    file: UploadFile


class LandingRoutes(Controller):
    """Where files are put for pipelines to read."""

    path = "/landing-zones"
    tags = ("Landing zones",)

    @get()
    async def list_zones(self, bus: Asker, page: Page, namespace: FromQuery[str | None] = None) -> Zones:
        """List landing zones."""
        return await bus.ask(ListZones(**page.model_dump(), namespace=namespace))

    @post(opt={"audit": "landing_zone.create"})
    async def create_zone(self, bus: Asker, notes: Noted, data: JSONBody[NewZone]) -> Zone:
        """Make a landing zone; what already lies under its prefix lands."""
        notes.resource = f"{data.namespace}/{data.name}"
        return await bus.ask(CreateZone(**data.given()))

    @get(_ONE)
    async def find_zone(self, bus: Asker, namespace: FromPath[str], zone: FromPath[str]) -> Zone:
        """Show a landing zone."""
        return await bus.ask(FindZone(namespace=namespace, name=zone))

    @put(_ONE, opt={"audit": "landing_zone.update"})
    async def update_zone(
        self, bus: Asker, namespace: FromPath[str], zone: FromPath[str], data: JSONBody[ZoneChange]
    ) -> Zone:
        """Change what is given of a landing zone; null clears its owner, or for how long archived files are kept."""
        return await bus.ask(ChangeZone(namespace=namespace, name=zone, cleared=data.cleared(), **data.given()))

    @delete(_ONE, opt={"audit": "landing_zone.delete"})
    async def delete_zone(self, bus: Asker, namespace: FromPath[str], zone: FromPath[str]) -> None:
        """Delete a landing zone and its files."""
        await bus.ask(RemoveZone(namespace=namespace, name=zone))

    @get(f"{_ONE}/files")
    async def list_files(
        self,
        bus: Asker,
        page: Page,
        namespace: FromPath[str],
        zone: FromPath[str],
        file_state: Annotated[FileState | None, QueryParameter(name="state")] = None,
    ) -> LandingFiles:
        """List the files of a zone, the newest first."""
        return await bus.ask(ListFiles(**page.model_dump(), namespace=namespace, zone=zone, state=file_state))

    @post(f"{_ONE}/files", request_max_body_size=_MAX_BYTES, opt={"audit": "landing_file.upload"})
    async def upload_file(
        self,
        bus: Asker,
        store: Store,
        notes: Noted,
        namespace: FromPath[str],
        zone: FromPath[str],
        data: Annotated[FileUpload, Body(media_type=RequestEncodingType.MULTI_PART)],
    ) -> LandingFile:
        """Put a file into a zone, up to 5 GiB."""
        file, filename = data.file, data.file.filename
        notes.resource = f"{namespace}/{zone}/{filename}"
        size = await _size(file)
        query = AddressUpload(
            namespace=namespace, zone=zone, filename=filename, content_type=file.content_type, size_bytes=size
        )
        sent = await _put(store, await bus.ask(query), file, size)
        return await bus.ask(
            RecordUpload(
                namespace=namespace,
                zone=zone,
                filename=filename,
                version_id=sent.version_id,
                size_bytes=sent.size_bytes,
                etag=sent.etag,
                content_type=file.content_type,
                uploaded_by=notes.caller,
            )
        )

    @get(_FILE)
    async def find_file(
        self, bus: Asker, namespace: FromPath[str], zone: FromPath[str], file_id: FromPath[UUID]
    ) -> LandingFile:
        """Show a file of a zone."""
        return await bus.ask(FindFile(namespace=namespace, zone=zone, file_id=file_id))

    @delete(_FILE, opt={"audit": "landing_file.delete"})
    async def delete_file(
        self, bus: Asker, namespace: FromPath[str], zone: FromPath[str], file_id: FromPath[UUID]
    ) -> None:
        """Take a file out of its zone at once, and delete it when no run reads it any more."""
        await bus.ask(RemoveFile(namespace=namespace, zone=zone, file_id=file_id))

    @post(f"{_FILE}/retry", status_code=200, opt={"audit": "landing_file.retry"})
    async def retry_file(
        self, bus: Asker, namespace: FromPath[str], zone: FromPath[str], file_id: FromPath[UUID]
    ) -> LandingFile:
        """Look at a rejected file again."""
        return await bus.ask(RetryFile(namespace=namespace, zone=zone, file_id=file_id))

    @post(f"{_FILE}/reject", status_code=200, opt={"audit": "landing_file.reject"})
    async def reject_file(
        self,
        bus: Asker,
        namespace: FromPath[str],
        zone: FromPath[str],
        file_id: FromPath[UUID],
        data: JSONBody[Rejection | None] = None,
    ) -> LandingFile:
        """Keep a file from being read, so that what it blocks can go on."""
        given = data.given() if data else {}
        return await bus.ask(RejectFile(namespace=namespace, zone=zone, file_id=file_id, **given))

    @post(f"{_ONE}/uploads", opt={"audit": "landing_file.address"})
    async def address_upload(
        self, bus: Asker, notes: Noted, namespace: FromPath[str], zone: FromPath[str], data: JSONBody[UploadRequest]
    ) -> UploadAddress:
        """Ask for an address at which a file can be put straight into the object store."""
        notes.resource = f"{namespace}/{zone}/{data.filename}"
        return await bus.ask(AddressUpload(namespace=namespace, zone=zone, **data.given()))

    @get(f"{_ONE}/samples")
    async def list_samples(self, bus: Asker, page: Page, namespace: FromPath[str], zone: FromPath[str]) -> Samples:
        """List the samples of a zone."""
        return await bus.ask(ListSamples(**page.model_dump(), namespace=namespace, zone=zone))

    @post(f"{_ONE}/samples", request_max_body_size=_MAX_BYTES, opt={"audit": "sample.upload"})
    async def upload_sample(
        self,
        bus: Asker,
        store: Store,
        notes: Noted,
        namespace: FromPath[str],
        zone: FromPath[str],
        data: Annotated[FileUpload, Body(media_type=RequestEncodingType.MULTI_PART)],
    ) -> Sample:
        """Put a sample into a zone, for previews only."""
        filename = data.file.filename
        notes.resource = f"{namespace}/{zone}/{filename}"
        address = await bus.ask(AddressSample(namespace=namespace, zone=zone, filename=filename))
        size = await _size(data.file)
        await _put(store, address, data.file, size)
        ending = filename.rpartition(".")[2].lower() if "." in filename else ""
        return Sample(path=address.filename, size=size, modified=utc_now(), type=ending)

    @delete(f"{_ONE}/samples/{{filename:path}}", opt={"audit": "sample.delete"})
    async def delete_sample(
        self, bus: Asker, namespace: FromPath[str], zone: FromPath[str], filename: FromPath[str]
    ) -> None:
        """Delete a sample."""
        await bus.ask(RemoveSample(namespace=namespace, zone=zone, filename=filename.removeprefix("/")))


async def _size(upload: UploadFile) -> int:
    """How long the file is, which was taken to the disk piece by piece if it is a large one."""
    return await anyio.to_thread.run_sync(upload.file.seek, 0, 2)


async def _put(store: Uplink, address: UploadAddress, upload: UploadFile, size: int) -> Sent:
    await upload.seek(0)
    content_type = upload.content_type or "application/octet-stream"
    return await store.put(address.url, upload.file, size_bytes=size, content_type=content_type)
