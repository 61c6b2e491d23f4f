"""The bucket: objects with versions, read and written by one role over S3."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

import aioboto3
import aiohttp
import botocore.exceptions
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from shared.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from shared.parts import in_parts_of
from shared.settings import Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef, PutObjectRequestTypeDef

MEBIBYTE = 1024**2
GIBIBYTE = 1024**3

_UNREACHABLE = (botocore.exceptions.ConnectionError, HTTPClientError, IncompleteReadError, aiohttp.ClientError)


@dataclass(frozen=True)
class Stored:
    """One version of an object, as it was written."""

    version_id: str | None
    """None where the bucket keeps no versions."""
    etag: str
    """Without quotes. A hash of the content only where the object was written in one part."""
    size: int


@dataclass(frozen=True)
class Described(Stored):
    """One version of an object, as it was found."""

    content_type: str
    modified_at: datetime


@dataclass(frozen=True)
class Listed:
    """An object in a listing; S3 does not list version ids with current objects."""

    key: str
    etag: str
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class Version:
    """A version of an object, or the mark that a deletion left."""

    key: str
    version_id: str
    is_latest: bool
    is_deletion: bool
    etag: str
    """Empty for a deletion."""
    size: int
    modified_at: datetime


@asynccontextmanager
async def object_store(
    settings: Settings,
    role: str,
    *,
    part_bytes: int = 8 * MEBIBYTE,
    largest_copy_bytes: int = 5 * GIBIBYTE,
) -> AsyncIterator["ObjectStore"]:
    """Open the bucket with the keys of a role; one client that lives as long as the block.

    What is streamed goes up in parts of `part_bytes`, and what is larger than `largest_copy_bytes` is copied in
    parts of that size: S3 takes 10 000 parts of at least 5 MiB, and copies 5 GiB in one request at the most.
    """
    config = AioConfig(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=50,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with s3_client(settings, role, config) as client:
        yield ObjectStore(client, settings.s3_bucket, part_bytes, largest_copy_bytes)


@asynccontextmanager
async def s3_client(settings: Settings, role: str, config: AioConfig) -> AsyncIterator["S3Client"]:
    """A client of the store with the keys of a role, which finds and trusts it as the settings say."""
    key = settings.s3_key(role)
    session = aioboto3.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key.get_secret_value(),
        aws_session_token=key.session_token.get_secret_value() if key.session_token is not None else None,
        region_name=settings.s3_region,
    )
    where = AioConfig(
        # boto3 presigns with version 2 unless told otherwise, which the stores refuse.
        signature_version="s3v4",
        s3={"addressing_style": "path" if settings.s3_path_style else "virtual"},
    )
    async with session.client(
        "s3", endpoint_url=settings.s3_endpoint, verify=settings.s3_ca_file, config=config.merge(where)
    ) as client:
        yield client


class _Address(TypedDict):
    Bucket: str
    Key: str
    VersionId: NotRequired[str]


class ObjectStore:
    """The objects of one bucket.

    Every method raises `NotFound` for a missing object or version, `Forbidden` for what the role may not do and
    `Unavailable` when the store cannot be reached.
    """

    def __init__(self, client: "S3Client", bucket: str, part_bytes: int, largest_copy_bytes: int) -> None:
        self._client = client
        self._bucket = bucket
        self._part_bytes = part_bytes
        self._largest_copy_bytes = largest_copy_bytes

    async def reach(self, prefix: str) -> None:
        """See that the bucket is there, by a look at keys that the role may list."""
        with _errors_of(self._bucket):
            await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1)

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
    ) -> Stored:
        """Write an object as a new version.

        `if_match` is the etag that the object must have, `if_none_match="*"` says that it must not exist yet;
        otherwise `Conflict`. A request whose answer was lost is repeated, and its own first try may be what it
        then conflicts with: look before giving up.
        """
        request: PutObjectRequestTypeDef = {
            "Bucket": self._bucket,
            "Key": key,
            "Body": content,
            "ContentType": content_type,
        }
        if if_match is not None:
            request["IfMatch"] = f'"{if_match}"'
        if if_none_match is not None:
            request["IfNoneMatch"] = if_none_match
        with _errors_of(key):
            answer = await self._client.put_object(**request)
        return Stored(answer.get("VersionId"), answer["ETag"].strip('"'), len(content))

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        content_type: str = "application/octet-stream",
        limit_bytes: int = 5 * GIBIBYTE,
    ) -> Stored:
        """Write an object of unknown length with a few parts in memory; more than the limit is `Invalid`.

        The object appears when the last chunk was taken, or not at all.
        """
        parts = in_parts_of(self._part_bytes, _limited(chunks, key, limit_bytes))
        first = await anext(parts, b"")
        if len(first) < self._part_bytes:
            return await self.put(key, first, content_type=content_type)
        async with self._upload(key, content_type) as upload:
            await upload.add(first)
            async for part in parts:
                await upload.add(part)
            return await upload.complete()

    async def get(self, key: str, version_id: str | None = None) -> bytes:
        """Read an object, or one version of it, into memory."""
        return b"".join([chunk async for chunk in self.stream(key, version_id)])

    async def stream(self, key: str, version_id: str | None = None) -> AsyncIterator[bytes]:
        """Read an object, or one version of it, chunk by chunk."""
        with _errors_of(key, version_id):
            answer = await self._client.get_object(**self._address(key, version_id))
            body = answer["Body"]
            async with body:
                while chunk := await body.read(MEBIBYTE):
                    yield chunk

    async def head(self, key: str, version_id: str | None = None) -> Described:
        """Describe an object, or one version of it."""
        with _errors_of(key, version_id):
            answer = await self._client.head_object(**self._address(key, version_id))
        return Described(
            answer.get("VersionId"),
            answer["ETag"].strip('"'),
            answer["ContentLength"],
            answer["ContentType"],
            answer["LastModified"],
        )

    async def objects(self, prefix: str) -> AsyncIterator[Listed]:
        """List the current objects under a prefix, by key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        with _errors_of(prefix):
            async for page in pages:
                for entry in page.get("Contents", []):
                    yield Listed(entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])

    async def versions(self, prefix: str) -> AsyncIterator[Version]:
        """List all versions and deletions under a prefix; those of one key from the newest to the oldest."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        with _errors_of(prefix):
            async for page in pages:
                found = [
                    Version(
                        entry["Key"],
                        entry["VersionId"],
                        entry["IsLatest"],
                        is_deletion=False,
                        etag=entry["ETag"].strip('"'),
                        size=entry["Size"],
                        modified_at=entry["LastModified"],
                    )
                    for entry in page.get("Versions", [])
                ]
                found += [
                    Version(
                        entry["Key"],
                        entry["VersionId"],
                        entry["IsLatest"],
                        is_deletion=True,
                        etag="",
                        size=0,
                        modified_at=entry["LastModified"],
                    )
                    for entry in page.get("DeleteMarkers", [])
                ]
                newest_first = sorted(found, key=lambda version: version.modified_at, reverse=True)
                for version in sorted(newest_first, key=lambda v: (v.key, not v.is_latest)):
                    yield version

    async def copy(self, source: str, target: str, *, version_id: str | None = None) -> Stored:
        """Write a version of one key as the newest version of another; nothing passes through this process."""
        what = await self.head(source, version_id)
        origin = self._address(source, version_id)
        if what.size > self._largest_copy_bytes:
            return await self._copy_parts(origin, what, target)
        with _errors_of(source, version_id):
            answer = await self._client.copy_object(Bucket=self._bucket, Key=target, CopySource=origin)
        return Stored(answer.get("VersionId"), answer["CopyObjectResult"]["ETag"].strip('"'), what.size)

    async def _copy_parts(self, origin: "_Address", what: Described, target: str) -> Stored:
        async with self._upload(target, what.content_type) as upload:
            for start in range(0, what.size, self._largest_copy_bytes):
                end = min(start + self._largest_copy_bytes, what.size)
                await upload.add_range(origin, start, end)
            return await upload.complete()

    async def delete(self, key: str, version_id: str | None = None) -> None:
        """Hide an object behind a deletion, or remove one version for good. Missing is fine."""
        with _errors_of(key, version_id):
            await self._client.delete_object(**self._address(key, version_id))

    async def presign_get(self, key: str, lifetime: timedelta, *, version_id: str | None = None) -> str:
        """Make an address that whoever knows it may GET for a while. Does not look whether the object exists."""
        return await self._client.generate_presigned_url(
            "get_object",
            Params=self._address(key, version_id),
            ExpiresIn=int(lifetime.total_seconds()),
        )

    async def presign_put(self, key: str, lifetime: timedelta) -> str:
        """Make an address to which whoever knows it may PUT the object for a while."""
        return await self._client.generate_presigned_url(
            "put_object",
            Params={"Bucket": self._bucket, "Key": key},
            ExpiresIn=int(lifetime.total_seconds()),
        )

    def _address(self, key: str, version_id: str | None) -> _Address:
        if version_id is None:
            return {"Bucket": self._bucket, "Key": key}
        return {"Bucket": self._bucket, "Key": key, "VersionId": version_id}

    @asynccontextmanager
    async def _upload(self, key: str, content_type: str) -> AsyncIterator["_Upload"]:
        with _errors_of(key):
            answer = await self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ContentType=content_type)
            upload_id = answer["UploadId"]
            try:
                yield _Upload(self._client, self._bucket, key, upload_id)
            except BaseException:
                with suppress(ClientError, *_UNREACHABLE):
                    await self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
                raise


class _Upload:
    """The parts of an object that does not exist yet."""

    def __init__(self, client: "S3Client", bucket: str, key: str, upload_id: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._upload_id = upload_id
        self._parts: list[CompletedPartTypeDef] = []
        self._size = 0

    async def add(self, content: bytes) -> None:
        number = len(self._parts) + 1
        answer = await self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=content
        )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._size += len(content)

    async def add_range(self, origin: "_Address", start: int, end: int) -> None:
        number = len(self._parts) + 1
        answer = await self._client.upload_part_copy(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload_id,
            PartNumber=number,
            CopySource=origin,
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        self._parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        self._size += end - start

    async def complete(self) -> Stored:
        answer = await self._client.complete_multipart_upload(
            Bucket=self._bucket,
            Key=self._key,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )
        return Stored(answer.get("VersionId"), answer["ETag"].strip('"'), self._size)


async def _limited(chunks: AsyncIterator[bytes], key: str, limit_bytes: int) -> AsyncIterator[bytes]:
    taken = 0
    async for chunk in chunks:
        taken += len(chunk)
        if taken > limit_bytes:
            raise Invalid(f"{key!r} is larger than {limit_bytes} bytes")
        yield chunk


@contextmanager
def _errors_of(key: str, version_id: str | None = None) -> Iterator[None]:
    what = f"object {key!r}" if version_id is None else f"version {version_id!r} of object {key!r}"
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        reason = error.response["Error"].get("Code", "")
        if reason == "NoSuchBucket":
            raise Unavailable(f"the bucket of {what} was not made yet") from error
        # 405 is a deletion that was asked for by its version id, and NoSuchVersion can come as 400.
        if status in (404, 405) or reason == "NoSuchVersion":
            raise NotFound(f"no {what}") from error
        if status in (409, 412):
            raise Conflict(f"{what} is not what the condition says: {reason}") from error
        if status == 403:
            raise Forbidden(f"{what}: {reason}") from error
        if status == 400:  # a name that is too long, for one
            raise Invalid(f"{what} is refused by the object store: {reason}") from error
        if status == 429 or status >= 500:
            raise Unavailable(f"the object store refused {what} for now: {status} {reason}") from error
        raise
    except _UNREACHABLE as error:
        raise Unavailable(f"the object store cannot be reached for {what}: {error}") from error
