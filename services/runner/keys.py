"""The key with which the process of a run uses the object store: it reads the warehouse and writes one table."""

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeAlias

from contracts.names import Layer, Qualified
from shared.settings import Settings
from shared.temporary_keys import TemporaryKey, TemporaryKeys, temporary_keys

Policy: TypeAlias = dict[str, Any]
"""An IAM policy document."""

_READ: Final = ["s3:GetObject", "s3:GetObjectVersion"]
_WRITE: Final = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
_LIST: Final = ["s3:ListBucket", "s3:ListBucketVersions"]
"""Both, as MinIO takes the first for the second."""
_MARGIN: Final = timedelta(minutes=10)
"""What a key lasts longer than the run may: the clocks of two machines, and a last request."""


class RunKeys:
    """Makes the keys of runs; without a role to assume there are none."""

    def __init__(self, keys: TemporaryKeys, settings: Settings) -> None:
        self._keys = keys
        self._role = settings.s3_run_role
        self._bucket = settings.s3_bucket
        self._life = timedelta(seconds=settings.s3_run_key_seconds)

    @property
    def are_made(self) -> bool:
        """Whether processes of runs have keys of their own."""
        return self._role is not None

    @property
    def renewed_after(self) -> timedelta:
        """How long a process goes on with one key."""
        return self._life

    async def writing(
        self, table: Qualified, zones_of: Collection[str], *, name: str, within: timedelta
    ) -> TemporaryKey | None:
        """The key of a run that writes a table and reads the landing zones of some namespaces."""
        return await self._make(policy_of_run(self._bucket, zones_of, writes=table), name, within)

    async def reading(self, zones_of: Collection[str], *, name: str, within: timedelta) -> TemporaryKey | None:
        """The key of whoever writes nothing."""
        return await self._make(policy_of_run(self._bucket, zones_of), name, within)

    async def _make(self, policy: Policy, name: str, within: timedelta) -> TemporaryKey | None:
        if self._role is None:
            return None
        return await self._keys.make(self._role, policy, name=name, lasts=min(within, self._life) + _MARGIN)


@asynccontextmanager
async def run_keys(settings: Settings) -> AsyncIterator[RunKeys]:
    """Make keys for as long as the block lasts."""
    async with temporary_keys(settings, "runner") as keys:
        yield RunKeys(keys, settings)


def policy_of_run(bucket: str, zones_of: Collection[str], writes: Qualified | None = None) -> Policy:
    """What the process of a run may do: read all tables and the landing zones of some namespaces, and write one table.

    Neither code nor reports nor logs, and nothing is deleted. `*` spans slashes: code is denied by name.
    """
    tables = [f"*/{layer}/*" for layer in Layer]
    zones = [f"{namespace}/landing/*" for namespace in sorted(zones_of)]
    code = [f"*/pipelines/{layer}/*" for layer in Layer]
    statements = [
        _about("Allow", _READ, bucket, [*tables, *zones]),
        *([_about("Allow", _WRITE, bucket, [f"{'/'.join(writes)}/*"])] if writes is not None else []),
        _about("Deny", ["s3:*"], bucket, code),
        {
            "Effect": "Allow",
            "Action": _LIST,
            "Resource": [f"arn:aws:s3:::{bucket}"],
            "Condition": {"StringLike": {"s3:prefix": [*tables, *zones]}},
        },
        {
            "Effect": "Deny",
            "Action": _LIST,
            "Resource": [f"arn:aws:s3:::{bucket}"],
            "Condition": {"StringLike": {"s3:prefix": code}},
        },
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _about(effect: str, actions: list[str], bucket: str, keys: list[str]) -> Policy:
    return {"Effect": effect, "Action": actions, "Resource": [f"arn:aws:s3:::{bucket}/{key}" for key in keys]}


def namespaces_named(files: Mapping[str, str], bucket: str) -> set[str]:
    """The namespaces whose landing zones the code names by address."""
    address = re.compile(rf"s3://{re.escape(bucket)}/([a-z0-9_-]+)/landing/")
    return {found for text in files.values() for found in address.findall(text)}
