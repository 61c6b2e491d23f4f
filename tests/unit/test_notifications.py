"""The filer's words about a landing zone become S3's."""

import base64
from typing import Any

import pytest

from infra.servers.notifications import FilerEvent, Notification, notification_of

ZONE = "/buckets/rat/default/landing/orders"


def entry(*, is_directory: bool = False, **attributes: str) -> dict[str, Any]:
    extended = {
        f"Seaweed-X-Amz-{name.replace('_', '-')}": base64.b64encode(value.encode()).decode()
        for name, value in attributes.items()
    }
    return {"name": "any", "is_directory": is_directory, "extended": extended, "attributes": {}}


def versions(version: str, *, modified: int = 100, **attributes: str) -> dict[str, Any]:
    return entry(
        is_directory=True,
        Latest_Version_Id=version,
        Latest_Version_Mtime=str(modified),
        **attributes,
    )


def told(key: str, *, old: dict[str, Any] | None = None, new: dict[str, Any] | None = None) -> Notification | None:
    event = FilerEvent.model_validate({"key": key, "message": {"old_entry": old, "new_entry": new}})
    return notification_of(event, "rat")


def test_a_version_that_became_the_latest_was_created() -> None:
    latest = versions("v2", Latest_Version_ETag="abc", Latest_Version_Size="12")

    created = told(f"{ZONE}/a.csv.versions", old=versions("v1"), new=latest)

    assert created == Notification(
        name="s3:ObjectCreated:Put",
        bucket="rat",
        key="default/landing/orders/a.csv",
        version_id="v2",
        etag="abc",
        size=12,
    )


def test_the_first_version_was_created() -> None:
    created = told(f"{ZONE}/a.csv.versions", old=entry(is_directory=True), new=versions("v1"))

    assert created is not None
    assert created.name == "s3:ObjectCreated:Put"


def test_a_deletion_that_became_the_latest_is_a_delete_marker() -> None:
    deletion = versions("v2", Latest_Version_Is_Delete_Marker="true")

    hidden = told(f"{ZONE}/a.csv.versions", old=versions("v1"), new=deletion)

    assert hidden is not None
    assert (hidden.name, hidden.version_id) == ("s3:ObjectRemoved:DeleteMarkerCreated", "v2")


def test_a_version_that_is_removed_was_deleted() -> None:
    removed = told(f"{ZONE}/a.csv.versions/v_1", old=entry(Version_Id="1"))

    assert removed is not None
    assert (removed.name, removed.key, removed.version_id) == (
        "s3:ObjectRemoved:Delete",
        "default/landing/orders/a.csv",
        "1",
    )


def test_a_file_may_be_called_like_a_folder_of_versions() -> None:
    created = told(f"{ZONE}/x.versions.versions", new=versions("v1"))

    assert created is not None
    assert created.key == "default/landing/orders/x.versions"


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        pytest.param(f"{ZONE}/a.csv.versions", None, entry(is_directory=True), id="a folder for versions is made"),
        pytest.param(f"{ZONE}/a.csv.versions/v_1", None, entry(Version_Id="1"), id="a version is not the latest yet"),
        pytest.param(f"{ZONE}/a.csv.versions/v_1", entry(Version_Id="1"), entry(Version_Id="1"), id="it gets a tag"),
        pytest.param(f"{ZONE}/a.csv.versions", versions("v1"), versions("v1"), id="the latest stays"),
        pytest.param(f"{ZONE}/a.csv.versions", versions("v2"), versions("v1", modified=99), id="an older one shows"),
        pytest.param(f"{ZONE}/a.csv.versions", versions("v1"), None, id="the last version went with its folder"),
        pytest.param(f"{ZONE}/sub", None, entry(is_directory=True), id="a folder is made"),
        pytest.param("/buckets/rat/default/landing/a.csv.versions", None, versions("v1"), id="it lies in no zone"),
        pytest.param("/buckets/rat/default/bronze/landing/a.versions", None, versions("v1"), id="it is a table's"),
        pytest.param("/buckets/rat/.uploads/1/0001.part", None, entry(), id="it is a part"),
    ],
)
def test_how_the_filer_does_it_is_not_told(key: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
    assert told(key, old=old, new=new) is None
