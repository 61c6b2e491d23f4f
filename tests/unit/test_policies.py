"""Policies say what each key may do, in words that every store understands."""

import json
from fnmatch import fnmatchcase

import pytest

from infra.servers.policies import Policy, policy_of
from shared.errors import Invalid

ROLES = ("catalog", "ingest", "runner", "query", "gateway", "infra", "uploader")


def is_allowed(policy: Policy, action: str, key: str) -> bool:
    """As IAM decides about an object: a denial wins, and what nobody allows is denied."""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(fnmatchcase(action, pattern) for pattern in statement["Action"])
        and any(fnmatchcase(f"arn:aws:s3:::rat/{key}", pattern) for pattern in statement["Resource"])
    }
    return effects == {"Allow"}


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_is_about_one_bucket_and_short_enough_for_a_session(role: str) -> None:
    policy = policy_of(role, "rat")
    resources = [resource for statement in policy["Statement"] for resource in statement["Resource"]]

    assert all(resource.startswith("arn:aws:s3:::rat") for resource in resources)
    assert len(json.dumps(policy, separators=(",", ":"))) < 2048


@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("runner", "sales/bronze/landings/data/1.parquet"),
        ("runner", "landing/bronze/orders/data/1.parquet"),
        ("runner", "pipelines/gold/orders/metadata/1.json"),
        ("runner", "sales/gold/runs/data/1.parquet"),
        ("catalog", "landing/pipelines/bronze/orders/pipeline.sql"),
        ("catalog", "bronze/pipelines/bronze/pipelines/pipeline.sql"),
        ("ingest", "landing/landing/landing/a.csv"),
        ("uploader", "bronze/landing/bronze/bronze/a.csv"),
    ],
)
def test_no_name_that_a_user_may_choose_takes_a_role_its_work(role: str, key: str) -> None:
    assert is_allowed(policy_of(role, "rat"), "s3:PutObject", key)


@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("runner", "sales/landing/zone/bronze/orders/data/1.parquet"),
        ("runner", "sales/pipelines/bronze/orders/data/1.parquet"),
        ("runner", "pipelines/pipelines/bronze/orders/pipeline.sql"),
        ("catalog", "sales/landing/pipelines/bronze/a/pipeline.sql"),
        ("catalog", "sales/silver/pipelines/data/1.parquet"),
        ("catalog", "sales/runs/3f1d9a52-6a0e-5c0b-8f0a-2d1f6a7c3e41/1.json"),
        ("query", "sales/silver/orders/data/1.parquet"),
        ("uploader", "sales/pipelines/bronze/orders/pipeline.sql"),
        ("gateway", "sales/landing/zone/a.csv"),
    ],
)
def test_no_name_that_a_user_may_choose_gives_a_role_more(role: str, key: str) -> None:
    assert not is_allowed(policy_of(role, "rat"), "s3:PutObject", key)


def test_a_role_that_does_not_exist_is_named() -> None:
    with pytest.raises(Invalid, match="no role of the object store is called 'janitor'"):
        policy_of("janitor", "rat")
