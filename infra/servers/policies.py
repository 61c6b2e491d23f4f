"""What each S3 key may do, as IAM policies, which every store understands.

Keys are laid out as `system.md` says (Storage layout). `*` in a policy spans slashes: `*/bronze/*` is the tables of
that layer, but code and files of landing zones too, so that those are denied to whoever has tables only, and a denial
wins. That no pipeline and no folder of code is called `landing`, and that layers are three, tells the folders apart.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from contracts.names import Layer
from shared.errors import Invalid

Policy: TypeAlias = dict[str, Any]
"""An IAM policy document."""

_RUN: Final = "????????-????-????-????-????????????"
"""The id of a run: tables may be called `runs` and `logs`, but never so."""

_LANDING: Final = ("*/landing/*",)
_CODE: Final = tuple(f"*/pipelines/{layer}/*" for layer in Layer)
_CODE_LISTS: Final = ("*/pipelines/*",)
_TABLES: Final = tuple(f"*/{layer}/*" for layer in Layer)
_REPORTS: Final = (f"*/runs/{_RUN}/*",)
_LOGS: Final = (f"*/logs/{_RUN}/*",)

_READ: Final = ("s3:GetObject", "s3:GetObjectVersion")
"""Both, as MinIO takes the first for the second."""
_WRITE: Final = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DELETE: Final = ("s3:DeleteObject",)
_DESTROY: Final = ("s3:DeleteObjectVersion",)
_LIST: Final = ("s3:ListBucket", "s3:ListBucketVersions")
_ALL: Final = ("s3:*",)


def policy_of(role: str, bucket: str) -> Policy:
    """The policy of a key: the role is a service, `run`, `nessie`, `infra` or `uploader`; `Invalid` for any other."""
    place = _Place(bucket)
    match role:
        case "catalog":
            statements = [
                place.allow((*_READ, *_WRITE, *_DELETE, *_DESTROY), _CODE),
                place.allow(_READ, (*_REPORTS, *_LOGS)),
                place.allow_list(_CODE_LISTS),
                *place.deny(_LANDING),
            ]
        case "ingest":
            statements = [
                place.allow((*_READ, *_WRITE, *_DELETE, *_DESTROY), _LANDING),
                place.allow_list(_LANDING),
            ]
        case "runner":
            statements = [
                place.allow(_READ, (*_CODE, *_LANDING)),
                place.allow((*_READ, *_WRITE, *_DELETE, *_DESTROY), _TABLES),
                place.allow((*_READ, *_WRITE), (*_REPORTS, *_LOGS)),
                # DuckDB lists what a file's name matches, if there is a character in it that patterns have.
                place.allow_list((*_TABLES, *_LANDING)),
                place.refuse((*_WRITE, *_DELETE, *_DESTROY), (*_CODE, *_LANDING)),
                place.refuse_list(_CODE),
            ]
        case "run":
            # What any run may do; each has a policy of its own besides, for its table only.
            statements = [
                place.allow(_READ, (*_LANDING, *_TABLES)),
                place.allow(_WRITE, _TABLES),
                place.allow_list((*_TABLES, *_LANDING)),
                place.refuse(_WRITE, _LANDING),
                *place.deny(_CODE),
            ]
        case "nessie":
            # It writes the metadata of tables, and reads nothing else.
            statements = [
                place.allow((*_READ, *_WRITE, *_DELETE), _TABLES),
                place.allow_list(_TABLES),
                *place.deny((*_CODE, *_LANDING)),
            ]
        case "query":
            statements = [
                place.allow(_READ, _TABLES),
                place.allow_list(_TABLES),
                *place.deny((*_CODE, *_LANDING)),
            ]
        case "uploader":
            statements = [
                place.allow((*_READ, *_WRITE, *_DELETE), _LANDING),
                place.allow_list(_LANDING),
                # A run may be about to read it; some stores take the right to delete for the right to destroy.
                place.refuse(_DESTROY, ("*",)),
            ]
        case "gateway" | "scheduler" | "trigger":
            # What the gateway carries goes over addresses that ingest and catalog have signed.
            statements = [place.refuse(_ALL, ("*",))]
        case "infra":
            statements = [place.allow(_ALL, ("*",)), place.allow_everything_of_the_bucket()]
        case _:
            raise Invalid(f"no role of the object store is called {role!r}")
    return {"Version": "2012-10-17", "Statement": statements}


class _Place:
    """The statements about one bucket."""

    def __init__(self, bucket: str) -> None:
        self._bucket = f"arn:aws:s3:::{bucket}"

    def allow(self, actions: Iterable[str], keys: Iterable[str]) -> Policy:
        return self._about_objects("Allow", actions, keys)

    def refuse(self, actions: Iterable[str], keys: Iterable[str]) -> Policy:
        return self._about_objects("Deny", actions, keys)

    def allow_list(self, prefixes: Iterable[str]) -> Policy:
        return self._about_lists("Allow", prefixes)

    def refuse_list(self, prefixes: Iterable[str]) -> Policy:
        return self._about_lists("Deny", prefixes)

    def deny(self, keys: Iterable[str]) -> list[Policy]:
        """Neither objects of these keys nor lists of them."""
        return [self.refuse(_ALL, keys), self.refuse_list(keys)]

    def allow_everything_of_the_bucket(self) -> Policy:
        return {"Effect": "Allow", "Action": list(_ALL), "Resource": [self._bucket]}

    def _about_objects(self, effect: str, actions: Iterable[str], keys: Iterable[str]) -> Policy:
        return {"Effect": effect, "Action": list(actions), "Resource": [f"{self._bucket}/{key}" for key in keys]}

    def _about_lists(self, effect: str, prefixes: Iterable[str]) -> Policy:
        return {
            "Effect": effect,
            "Action": list(_LIST),
            "Resource": [self._bucket],
            "Condition": {"StringLike": {"s3:prefix": list(prefixes)}},
        }
