"""No role may do more than its work, whoever holds its password or key: each is tried on the real servers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import aioboto3
import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from infra.stacks.stack import Stack
from shared.settings import Settings

# The object store

RUN: Final = "3f1d9a52-6a0e-5c0b-8f0a-2d1f6a7c3e41"
PLACES: Final = {
    "code": "{ns}/pipelines/bronze/orders/pipeline.sql",
    "landing": "{ns}/landing/zone/file.csv",
    "table": "{ns}/silver/orders/data/file.parquet",
    "report": f"{{ns}}/runs/{RUN}/1.json",
    "log": f"{{ns}}/logs/{RUN}/1.jsonl",
    # What the patterns of a policy could take for something else.
    "landing like a table": "{ns}/landing/zone/bronze/orders/data/file.parquet",
    "landing like code": "{ns}/landing/zone/pipelines/bronze/orders/pipeline.sql",
    "landing like a report": f"{{ns}}/landing/zone/runs/{RUN}/1.json",
    "table called pipelines": "{ns}/silver/pipelines/data/file.parquet",
    "table called runs": "{ns}/gold/runs/metadata/1.json",
    "elsewhere": "{ns}/secrets/file",
}
READ: Final = {"get", "get version"}
CHANGE: Final = {"put", "put in parts", "delete"}
DESTROY: Final = {"delete version"}
LIST: Final = {"list", "list versions"}
EVERYTHING: Final = READ | CHANGE | DESTROY | LIST
LANDINGS: Final = [name for name in PLACES if name.startswith("landing")]
TABLES: Final = [name for name in PLACES if name.startswith("table")]

MAY: Final[dict[str, dict[str, set[str]]]] = {
    # It lists the code of a namespace, by a pattern that the names of such a table's files fit as well.
    "catalog": {"code": EVERYTHING, "report": {"get"}, "log": {"get"}, "table called pipelines": LIST},
    "ingest": dict.fromkeys(LANDINGS, EVERYTHING),
    "runner": {
        "code": READ,
        **dict.fromkeys(LANDINGS, READ),
        **dict.fromkeys(TABLES, EVERYTHING),
        "report": {"get", "put", "put in parts"},
        "log": {"get", "put", "put in parts"},
    },
    "query": {name: {"get"} | LIST for name in TABLES},
    "gateway": {},
    "uploader": dict.fromkeys(LANDINGS, READ | CHANGE | LIST),
    "infra": dict.fromkeys(PLACES, EVERYTHING),
}


@asynccontextmanager
async def s3(settings: Settings, role: str) -> AsyncIterator[Any]:
    key = settings.s3_key(role)
    session = aioboto3.Session(
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key.get_secret_value(),
        region_name=settings.s3_region,
    )
    config = AioConfig(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, signature_version="s3v4")
    async with session.client("s3", endpoint_url=settings.s3_endpoint, config=config) as client:
        yield client


async def is_allowed(attempt: Awaitable[Any]) -> bool:
    try:
        await attempt
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
        return False
    return True


async def attempts(client: Any, bucket: str, key: str, version: str, doomed: str) -> dict[str, bool]:
    """What a key may do at a place, where a version lies, and another one that may be destroyed."""
    at = {"Bucket": bucket, "Key": key}
    folder = key.rpartition("/")[0] + "/"

    async def put_in_parts() -> None:
        upload = {**at, "UploadId": (await client.create_multipart_upload(**at))["UploadId"]}
        part = await client.upload_part(**upload, PartNumber=1, Body=b"part")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        await client.complete_multipart_upload(**upload, MultipartUpload=parts)

    tries: dict[str, Callable[[], Awaitable[Any]]] = {
        "get": lambda: client.get_object(**at),
        "get version": lambda: client.get_object(**at, VersionId=version),
        "list": lambda: client.list_objects_v2(Bucket=bucket, Prefix=folder),
        "list versions": lambda: client.list_object_versions(Bucket=bucket, Prefix=folder),
        "put": lambda: client.put_object(**at, Body=b"changed"),
        "put in parts": put_in_parts,
        "delete version": lambda: client.delete_object(**at, VersionId=doomed),
        "delete": lambda: client.delete_object(**at),
    }
    return {name: await is_allowed(attempt()) for name, attempt in tries.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("role", MAY)
async def test_a_key_reaches_what_it_works_with_and_nothing_else(stack: Stack, role: str, place: str) -> None:
    bucket = stack.settings.s3_bucket
    key = PLACES[place].format(ns=f"n{uuid4().hex[:8]}")
    async with s3(stack.settings, "infra") as infra, s3(stack.settings, role) as client:
        doomed, version = [
            (await infra.put_object(Bucket=bucket, Key=key, Body=body))["VersionId"] for body in (b"first", b"second")
        ]

        allowed = await attempts(client, bucket, key, version, doomed)

    assert {name for name, is_possible in allowed.items() if is_possible} == MAY[role].get(place, set())
