"""The files of pipelines at the versions that were pinned; a version never changes, so what was read once is kept."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from contracts.names import Qualified
from contracts.runs import PinnedFile
from services.runner.problems import AuthorError, Problem
from shared.errors import NotFound
from shared.object_store import ObjectStore

_KEPT_BYTES: Final = 32_000_000


class Code:
    """Reads pinned files, several at a time, and keeps those that were used last."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._kept: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._free = _KEPT_BYTES

    async def read(self, pipeline: Qualified, files: Iterable[PinnedFile]) -> dict[str, str]:
        """The texts of a pipeline's files by path; `AuthorError` for one that is no text, or is not there any more."""
        wanted = list(files)
        texts = await asyncio.gather(*(self._read(pipeline, file) for file in wanted))
        return {file.path: text for file, text in zip(wanted, texts, strict=True)}

    async def _read(self, pipeline: Qualified, file: PinnedFile) -> str:
        place = (pipeline.folder + file.path, file.version_id)
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        try:
            # Some editors begin a file with a mark, which is no part of its text.
            text = (await self._objects.get(*place)).decode("utf-8-sig")
        except NotFound as error:
            raise AuthorError(Problem(file.path, f"its version {file.version_id} is not kept any more")) from error
        except UnicodeDecodeError as error:
            raise AuthorError(Problem(file.path, f"the file is no UTF-8 text: {error}")) from error
        self._keep(place, text)
        return text

    def _keep(self, place: tuple[str, str], text: str) -> None:
        if place in self._kept:
            return
        self._kept[place] = text
        self._free -= len(text)
        while self._free < 0:
            self._free += len(self._kept.popitem(last=False)[1])
