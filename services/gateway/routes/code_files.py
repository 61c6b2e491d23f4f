"""The files of pipelines, as drafts."""

from dataclasses import dataclass
from typing import Annotated

from litestar import Controller, delete, get, post, put
from litestar.datastructures import UploadFile
from litestar.di import Provide
from litestar.enums import RequestEncodingType
from litestar.params import Body, FromPath, FromQuery, HeaderParameter, JSONBody

from contracts.files import (
    CodeFileContent,
    CodeFiles,
    CodeFileWritten,
    DeleteCodeFile,
    ListCodeFiles,
    ReadCodeFile,
    WriteCodeFile,
)
from services.gateway.bodies import CodeText
from services.gateway.dependencies import Asker, Noted, Page, long_page
from shared.errors import Invalid

IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="The version id that the file must have")]


@dataclass
class CodeUpload:
    """A form with a path and the file that goes there."""

    path: str
    file: UploadFile


class CodeFileRoutes(Controller):
    """The code of pipelines, file by file; a path is `{namespace}/pipelines/{layer}/{name}/{file}`."""

    path = "/files"
    tags = ("Files of pipelines",)
    dependencies = {"page": Provide(long_page, sync_to_thread=False)}

    @get()
    async def list_files(
        self, bus: Asker, page: Page, prefix: FromQuery[str] = "", exclude: FromQuery[str] = ""
    ) -> CodeFiles:
        """List the files of pipelines by path."""
        return await bus.ask(ListCodeFiles(**page.model_dump(), prefix=prefix, exclude=exclude))

    @get("/{path:path}")
    async def read_file(self, bus: Asker, path: FromPath[str]) -> CodeFileContent:
        """Read a file."""
        return await bus.ask(ReadCodeFile(path=path.removeprefix("/")))

    @put("/{path:path}", opt={"audit": "file.write"})
    async def write_file(
        self, bus: Asker, path: FromPath[str], data: JSONBody[CodeText], if_match: IfMatch = None
    ) -> CodeFileWritten:
        """Write a file as a new version."""
        if_match = if_match.removeprefix("W/").strip('"') if if_match else None
        return await bus.ask(WriteCodeFile(path=path.removeprefix("/"), content=data.content, if_match=if_match))

    @delete("/{path:path}", opt={"audit": "file.delete"})
    async def delete_file(self, bus: Asker, path: FromPath[str]) -> None:
        """Delete a file; its versions stay."""
        await bus.ask(DeleteCodeFile(path=path.removeprefix("/")))

    @post("/upload", opt={"audit": "file.write"})
    async def upload_file(
        self,
        bus: Asker,
        notes: Noted,
        data: Annotated[CodeUpload, Body(media_type=RequestEncodingType.MULTI_PART)],
    ) -> CodeFileWritten:
        """Write a file that is sent as a form."""
        notes.resource = data.path
        try:
            content = (await data.file.read()).decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"{data.path!r} is not text in UTF-8: {error}") from error
        return await bus.ask(WriteCodeFile(path=data.path, content=content))
