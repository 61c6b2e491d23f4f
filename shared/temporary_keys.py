"""Keys of the object store that are good for a while, and for less than the role that asks for them may do.

They come from `AssumeRole` of the Security Token Service, which SeaweedFS, MinIO and AWS have.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from xml.etree import ElementTree

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import SecretStr

from shared.errors import Forbidden, Unavailable
from shared.settings import S3Key, Settings
from shared.tls import trusting

_SHORTEST: Final = timedelta(seconds=900)
_LONGEST: Final = timedelta(hours=12)
"""What the service takes for the life of a key."""
_RESULT: Final = "{*}AssumeRoleResult/{*}Credentials/{*}"


@dataclass(frozen=True)
class TemporaryKey:
    """A key, and when it stops being one."""

    key: S3Key
    expires_at: datetime


@asynccontextmanager
async def temporary_keys(settings: Settings, role: str) -> AsyncIterator["TemporaryKeys"]:
    """Ask for keys with those of a role, for as long as the block lasts."""
    connector = aiohttp.TCPConnector(ssl=trusting(settings.s3_ca_file))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as http:
        yield TemporaryKeys(http, settings, settings.s3_key(role))


class TemporaryKeys:
    """Keys made of one that is given for good."""

    def __init__(self, http: aiohttp.ClientSession, settings: Settings, key: S3Key) -> None:
        self._http = http
        self._url = (settings.s3_sts_endpoint or settings.s3_endpoint).rstrip("/") + "/"
        self._region = settings.s3_region
        token = key.session_token.get_secret_value() if key.session_token is not None else None
        self._credentials = Credentials(key.access_key_id, key.secret_access_key.get_secret_value(), token)

    async def make(self, role_arn: str, policy: Mapping[str, Any], *, name: str, lasts: timedelta) -> TemporaryKey:
        """A key for what both the role and the policy allow; it lasts from a quarter of an hour to half a day.

        `name` is what the store's own logs call whoever uses it. `Forbidden` when the store does not give any,
        `Unavailable` when it cannot be reached.
        """
        asked = {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": role_arn,
            "RoleSessionName": name,
            "Policy": json.dumps(policy, separators=(",", ":")),
            "DurationSeconds": str(round(min(max(lasts, _SHORTEST), _LONGEST).total_seconds())),
        }
        body = urlencode(asked).encode()
        try:
            async with self._http.post(
                self._url, data=body, headers=self._signed(body), allow_redirects=False
            ) as response:
                status, answer = response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"no key for {name}: the object store cannot be reached: {why}") from error
        if status >= 500:
            raise Unavailable(f"no key for {name}: the object store answered {status} {answer[:300]}")
        if status >= 300:
            raise Forbidden(f"no key for {name}: AssumeRole of {role_arn} is refused: {answer[:300]}")
        return _read(answer)

    def _signed(self, body: bytes) -> dict[str, str]:
        """The headers of a request with this body."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        request = AWSRequest(method="POST", url=self._url, data=body, headers=headers)
        # As for S3, with the hash of the body in a header: SeaweedFS does not take it otherwise.
        S3SigV4Auth(self._credentials, "sts", self._region).add_auth(request)
        return dict(request.headers.items())


def _read(answer: str) -> TemporaryKey:
    tree = ElementTree.fromstring(answer)  # noqa: S314  # the store's, whom we trust with everything

    def text(name: str) -> str:
        found = tree.findtext(_RESULT + name)
        if not found:
            raise Unavailable(f"the object store answers AssumeRole without {name}")
        return found

    key = S3Key(
        access_key_id=text("AccessKeyId"),
        secret_access_key=SecretStr(text("SecretAccessKey")),
        session_token=SecretStr(text("SessionToken")),
    )
    return TemporaryKey(key, datetime.fromisoformat(text("Expiration").replace("Z", "+00:00")))
