"""What changed in the bucket, translated: from the filer's words into an S3 notification."""

import base64
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote_plus

from pydantic import BaseModel

EventName: TypeAlias = Literal[
    "s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete", "s3:ObjectRemoved:DeleteMarkerCreated"
]

_VERSIONS: Final = ".versions"
_AMZ: Final = "Seaweed-X-Amz-"
_LATEST: Final = f"{_AMZ}Latest-Version-"


class Entry(BaseModel, frozen=True):
    """A file or a folder of the filer."""

    is_directory: bool = False
    extended: dict[str, str] = {}
    """Values are base64."""

    def attribute(self, name: str) -> str:
        """An extended attribute as text; empty where there is none."""
        return base64.b64decode(self.extended.get(name, "")).decode()


class Change(BaseModel, frozen=True):
    """The entry before and after: no old one means that it was created, no new one that it was deleted."""

    old_entry: Entry | None = None
    new_entry: Entry | None = None


class FilerEvent(BaseModel, frozen=True):
    """What the filer posts to its webhook."""

    key: str
    message: Change


class Notification(BaseModel, frozen=True):
    """One version of an object that came or went."""

    name: EventName
    bucket: str
    key: str
    version_id: str
    etag: str = ""
    size: int = 0

    def body(self, now: datetime) -> dict[str, Any]:
        """The notification as MinIO sends it."""
        described: dict[str, Any] = {"key": quote_plus(self.key), "versionId": self.version_id}
        if self.name == "s3:ObjectCreated:Put":
            described |= {"size": self.size, "eTag": self.etag}
        record = {
            "eventVersion": "2.0",
            "eventSource": "rat:s3",
            "eventTime": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "eventName": self.name.removeprefix("s3:"),
            "s3": {"bucket": {"name": self.bucket}, "object": described},
        }
        return {"EventName": self.name, "Key": f"{self.bucket}/{self.key}", "Records": [record]}


def notification_of(event: FilerEvent, bucket: str) -> Notification | None:
    """What happened to an object of a landing zone, or None: most of what the filer tells is how it does it.

    The versions of `a.csv` are the files of a folder `a.csv.versions`, one attribute of which names the latest. An
    object is there once that attribute names it, not before. It also changes when the latest version is deleted and
    an older one shows again, which S3 does not call a creation.
    """
    path = event.key.removeprefix(f"/buckets/{bucket}/")
    old, new = event.message.old_entry, event.message.new_entry
    if not is_in_landing_zone(path):
        return None
    if old and not new and not old.is_directory and (version := old.attribute(f"{_AMZ}Version-Id")):
        key = path.rpartition("/")[0].removesuffix(_VERSIONS)
        return Notification(name="s3:ObjectRemoved:Delete", bucket=bucket, key=key, version_id=version)
    if new and new.is_directory and path.endswith(_VERSIONS) and _is_newer(new, old):
        return _latest(new, bucket, path.removesuffix(_VERSIONS))
    return None


def is_in_landing_zone(path: str) -> bool:
    """Whether a path lies in `{ns}/landing/{zone}/`."""
    parts = path.split("/")
    return len(parts) >= 4 and parts[1] == "landing"


def _is_newer(new: Entry, old: Entry | None) -> bool:
    version = new.attribute(f"{_LATEST}Id")
    if not version:
        return False
    if old is None or not old.attribute(f"{_LATEST}Id"):
        return True
    before, after = (int(entry.attribute(f"{_LATEST}Mtime") or 0) for entry in (old, new))
    return version != old.attribute(f"{_LATEST}Id") and after >= before


def _latest(folder: Entry, bucket: str, key: str) -> Notification:
    version = folder.attribute(f"{_LATEST}Id")
    if folder.attribute(f"{_LATEST}Is-Delete-Marker") == "true":
        return Notification(name="s3:ObjectRemoved:DeleteMarkerCreated", bucket=bucket, key=key, version_id=version)
    return Notification(
        name="s3:ObjectCreated:Put",
        bucket=bucket,
        key=key,
        version_id=version,
        etag=folder.attribute(f"{_LATEST}ETag"),
        size=int(folder.attribute(f"{_LATEST}Size") or 0),
    )
