"""Who may do what in MinIO: its users and their policies, brought by its import of identities."""

import io
import json
import zipfile
from typing import Any, Final

import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from infra.servers.policies import policy_of
from shared.errors import Unavailable
from shared.settings import Settings
from shared.tls import trusting

_IMPORT_PATH: Final = "/minio/admin/v3/import-iam-v2"
"""The one call of the admin API that takes everything at once, and in the clear, as `mc admin cluster iam import` sends
it; the calls for one user each want a cipher of MinIO's own."""
_NOT_ROLES: Final = frozenset({"infra"})
"""Whoever owns MinIO: its key is given by the environment."""


async def give_access(settings: Settings) -> None:
    """Let each role have its key, with a policy of its name and no other right.

    `Unavailable` when MinIO does not take them; `ConnectionError` while it is not ready.
    """
    body = _identities(settings)
    headers = _signed("PUT", f"{settings.s3_endpoint}{_IMPORT_PATH}", body, settings)
    async with httpx.AsyncClient(verify=trusting(settings.s3_ca_file), trust_env=False, timeout=30) as http:
        answer = await http.put(f"{settings.s3_endpoint}{_IMPORT_PATH}", content=body, headers=headers)
    if answer.status_code >= 500:
        raise ConnectionError(answer.text)
    if not answer.is_success:
        raise Unavailable(f"MinIO does not take the roles' keys: {answer.status_code} {answer.text}")
    failed = {kind: found for kind, found in (answer.json().get("failed") or {}).items() if found}
    if failed:
        raise Unavailable(f"MinIO does not take some of the roles' keys: {failed}")


def _identities(settings: Settings) -> bytes:
    roles = {role: key for role, key in settings.s3_keys.items() if role not in _NOT_ROLES}
    files: dict[str, Any] = {
        "policies": {role: policy_of(role, settings.s3_bucket) for role in roles},
        "users": {
            key.access_key_id: {"secretKey": key.secret_access_key.get_secret_value(), "status": "enabled"}
            for key in roles.values()
        },
        "user_mappings": {key.access_key_id: {"version": 1, "policy": role} for role, key in roles.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"iam-assets/{name}.json", json.dumps(content))
    return buffer.getvalue()


def _signed(method: str, url: str, body: bytes, settings: Settings) -> dict[str, str]:
    root = settings.s3_key("infra")
    credentials = Credentials(root.access_key_id, root.secret_access_key.get_secret_value())
    request = AWSRequest(method=method, url=url, data=body)
    S3SigV4Auth(credentials, "s3", settings.s3_region).add_auth(request)
    return dict(request.headers.items())
