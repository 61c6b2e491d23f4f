"""How PyIceberg reads and writes the files of tables, with as few requests as S3 allows.

PyIceberg's own FileIO looks whether a file exists before it writes it, asks for the length of what it just wrote, and
reads the same metadata twice. Here none of that happens: a metadata file never changes, so what this process has
written or read once is kept in memory. And the metadata files of a commit can be put at the same time (`put_all`).
"""

import io
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Lock
from typing import Final
from uuid import uuid4

from pyarrow.fs import S3FileSystem
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from contracts.names import Qualified
from shared.errors import Declined, Unavailable
from shared.settings import Settings

_MEBIBYTE: Final = 1024**2
_AT_ONCE: Final = 8


def s3_properties(settings: Settings, role: str) -> dict[str, str]:
    """Say to PyIceberg where the object store is and with which keys to use it."""
    key = settings.s3_key(role)
    return {
        "s3.endpoint": settings.s3_endpoint,
        "s3.force-virtual-addressing": str(not settings.s3_path_style),
        **({"s3.tls-ca-file": settings.s3_ca_file} if settings.s3_ca_file else {}),
        "s3.region": settings.s3_region,
        "s3.access-key-id": key.access_key_id,
        "s3.secret-access-key": key.secret_access_key.get_secret_value(),
        **({"s3.session-token": key.session_token.get_secret_value()} if key.session_token is not None else {}),
    }


_DECLINED: Final = re.compile(
    r"AWS Error (INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT)"
    r"|\(HTTP status (5\d\d|429|408)\)"
)
"""What the SDK in pyarrow says of answers that another try may change."""


def new_folder(bucket: str, table: Qualified) -> str:
    """A location for a table that is created: two branches may create the same name."""
    return f"s3://{bucket}/{'/'.join(table)}/{uuid4().hex[:12]}"


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Tell a store that cannot be reached, or declines, from a file that is not there: pyarrow says OSError to all.

    Files of metadata do so by themselves. Put it around whatever has pyarrow read or write data files.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        if "ACCESS_DENIED" in str(error):
            raise PermissionError(f"{what}: {error}") from error
        if _DECLINED.search(str(error)):
            raise Declined(f"the object store declined {what}: {error}") from error
        raise Unavailable(f"the object store cannot be reached for {what}: {error}") from error


class TableFiles(FileIO):
    """The files of tables for one process, which keeps a single instance.

    Understands the properties of `s3_properties`, and `s3.session-token`. `FileNotFoundError` and `PermissionError`
    are as PyIceberg expects them; a store that cannot be reached is `Unavailable`.
    """

    def __init__(self, properties: dict[str, str]) -> None:
        super().__init__(properties)
        self._s3 = _file_system(properties)
        self._kept = _Kept(largest=8 * _MEBIBYTE, total=64 * _MEBIBYTE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="table files")

    def use(self, properties: dict[str, str]) -> None:
        """Go on with another key: with these properties; what is known of files stays."""
        self.properties = properties
        self._s3 = _file_system(properties)

    def new_input(self, location: str) -> "TableFile":
        """Name a file to read."""
        return TableFile(location, self._s3, self._kept)

    def new_output(self, location: str) -> "TableFile":
        """Name a file to write."""
        return TableFile(location, self._s3, self._kept)

    def put_all(self, contents: Mapping[str, bytes]) -> None:
        """Write metadata files, by location, all at the same time.

        Returns when all of them are in the store, and raises what one of them ran into: then none may be named.
        """
        puts = [self._threads.submit(self.new_output(place).write, content) for place, content in contents.items()]
        wait(puts)
        for put in puts:
            put.result()

    def read_all(self, locations: Iterable[str]) -> None:
        """Have these metadata files in memory, as far as there is room, all read at the same time."""
        missing = [location for location in locations if self._kept.get(location) is None]
        if len(missing) > 1:
            list(self._threads.map(lambda place: self.new_input(place).open().close(), missing))

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove a file."""
        name = location if isinstance(location, str) else location.location
        self._kept.drop(name)
        with storage_errors(name):
            self._s3.delete_file(_path(name))


def _file_system(properties: dict[str, str]) -> S3FileSystem:
    return S3FileSystem(
        endpoint_override=properties["s3.endpoint"],
        region=properties["s3.region"],
        access_key=properties["s3.access-key-id"],
        secret_key=properties["s3.secret-access-key"],
        session_token=properties.get("s3.session-token"),
        force_virtual_addressing=properties.get("s3.force-virtual-addressing") == "True",
        tls_ca_file_path=properties.get("s3.tls-ca-file"),
        allow_delayed_open=True,
        # What is written here is small and comes whole: a thread for it costs more than it saves.
        background_writes=False,
        connect_timeout=5,
        request_timeout=60,
    )


class TableFile(InputFile, OutputFile):
    """One file of a table."""

    def __init__(self, location: str, s3: S3FileSystem, kept: "_Kept") -> None:
        super().__init__(location)
        self._s3 = s3
        self._kept = kept
        self._is_metadata = "/metadata/" in location

    def __len__(self) -> int:
        content = self._kept.get(self.location)
        if content is not None:
            return len(content)
        with storage_errors(self.location):
            size: int | None = self._s3.get_file_info(_path(self.location)).size
        if size is None:
            raise FileNotFoundError(self.location)
        return size

    def exists(self) -> bool:
        """Whether the file is there."""
        try:
            len(self)
        except FileNotFoundError:
            return False
        return True

    def open(self, seekable: bool = True) -> InputStream:
        """Open the file to read it; metadata comes whole."""
        with storage_errors(self.location):
            if not self._is_metadata:
                data: InputStream = self._s3.open_input_file(_path(self.location))
                return data
            content = self._kept.get(self.location)
            if content is None:
                with self._s3.open_input_file(_path(self.location)) as stream:
                    content = stream.read()
                self._kept.put(self.location, content)
            return io.BytesIO(content)

    def create(self, overwrite: bool = False) -> OutputStream:
        """Open the file to write it, without a look whether it exists: the names of these files are unique."""
        if self._is_metadata:
            return _Metadata(self)
        data: OutputStream = self._s3.open_output_stream(_path(self.location))
        return data

    def to_input_file(self) -> "TableFile":
        """Name what was written as something to read."""
        return self

    def write(self, content: bytes) -> None:
        """Write the whole file at once."""
        with storage_errors(self.location), self._s3.open_output_stream(_path(self.location)) as stream:
            stream.write(content)
        # Only what is in the store is known: nobody may go by a file that is not there.
        self._kept.put(self.location, content)


class _Metadata(io.BytesIO):
    """A metadata file under way: one request when it is closed."""

    def __init__(self, file: TableFile) -> None:
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            self._file.write(content)


class _Kept:
    """The files that were used last, up to a number of bytes. PyIceberg reads and writes from several threads."""

    def __init__(self, *, largest: int, total: int) -> None:
        self._largest = largest
        self._free = total
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, location: str) -> bytes | None:
        with self._lock:
            if location in self._contents:
                self._contents.move_to_end(location)
            return self._contents.get(location)

    def drop(self, location: str) -> None:
        with self._lock:
            self._free += len(self._contents.pop(location, b""))

    def put(self, location: str, content: bytes) -> None:
        if len(content) > self._largest:
            return
        with self._lock:
            self._free += len(self._contents.pop(location, b"")) - len(content)
            self._contents[location] = content
            while self._free < 0:
                self._free += len(self._contents.popitem(last=False)[1])


def _path(location: str) -> str:
    return location.removeprefix("s3://")
