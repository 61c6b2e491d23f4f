"""Which files a run reads, what its end does to them, and what a name in a zone stands for."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from contracts.landing import BucketChanged, FileState, ZoneForm
from contracts.runs import RunStatus
from services.ingest.domain import (
    PAGE_BYTES,
    PAGE_FILES,
    Arrival,
    Changed,
    Claim,
    Known,
    Move,
    NameChanges,
    NotYet,
    Over,
    Place,
    ReadState,
    Ready,
    RunRecord,
    Seen,
    Unchanged,
    ZoneFile,
    answer_claim,
    fitting,
    name_changes,
    recheck,
    settle,
)
from services.ingest.keys import Told, name_problem, place_of, seen, told, upload_problem

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A1, A2, B1 = (
    ZoneFile(UUID(int=number), key, version) for number, key, version in [(1, "a", "1"), (2, "a", "2"), (3, "b", "1")]
)
ALL, NEW = ZoneForm.ALL, ZoneForm.NEW
V1, V2 = (Seen(UUID(int=number), Place("default", "orders", "a.csv"), str(number), "etag", 1, NOW) for number in (1, 2))


def answer(form: ZoneForm, run: RunRecord | None = None, attempt: int = 1, **facts: object) -> Ready | NotYet | Over:
    known: dict[str, object] = {"kept": None, "zone_files": [A1, B1], "read_ids": set(), "is_earlier_unsettled": False}
    return answer_claim(run or RunRecord(), attempt, form, **(known | facts))  # type: ignore[arg-type]


# Claims


def test_a_run_gets_what_the_zone_holds() -> None:
    assert answer(ALL) == Ready((A1, B1), is_new=True)


def test_only_new_leaves_out_what_good_runs_of_the_pipeline_have_read() -> None:
    assert answer(NEW, read_ids={A1.file_id}) == Ready((B1,), is_new=True)
    assert answer(ALL, read_ids={A1.file_id}) == Ready((A1, B1), is_new=True)


def test_only_new_waits_for_an_earlier_run_and_all_does_not() -> None:
    assert answer(NEW, is_earlier_unsettled=True) == NotYet()
    assert answer(ALL, is_earlier_unsettled=True) == Ready((A1, B1), is_new=True)


@pytest.mark.parametrize("kept", [(A1,), ()])
def test_the_answer_that_was_kept_stands_an_empty_one_too(kept: tuple[ZoneFile, ...]) -> None:
    assert answer(NEW, kept=kept, is_earlier_unsettled=True) == Ready(kept, is_new=False)


def test_a_settled_run_is_over_whatever_it_got_before() -> None:
    assert answer(ALL, RunRecord(is_settled=True), kept=(A1,)) == Over()


def test_an_attempt_is_over_once_a_newer_one_has_asked() -> None:
    assert answer(ALL, RunRecord(newest_attempt=2), attempt=1) == Over()
    assert answer(ALL, RunRecord(newest_attempt=2), attempt=2) == Ready((A1, B1), is_new=True)


@pytest.mark.parametrize(
    ("status", "dry_run", "state"),
    [
        (RunStatus.SUCCESS, False, ReadState.READ),
        (RunStatus.SUCCESS, True, ReadState.RELEASED),
        (RunStatus.FAILED, False, ReadState.RELEASED),
        (RunStatus.CANCELLED, False, ReadState.RELEASED),
    ],
)
def test_only_a_success_that_was_no_dry_run_has_read_its_files(
    status: RunStatus, dry_run: bool, state: ReadState
) -> None:
    claim = Claim(NEW, A1)

    assert settle([claim], status, dry_run=dry_run) == {claim: state}


# Checks after writing


def test_files_that_are_still_there_are_unchanged() -> None:
    assert recheck(RunRecord(), 1, [Claim(NEW, A1)], {"a": A1}) == Unchanged()


@pytest.mark.parametrize("found", [A2, None])
def test_a_claim_becomes_what_the_zone_now_holds_of_its_name(found: ZoneFile | None) -> None:
    kept, moved = Claim(NEW, B1), Claim(NEW, A1)

    assert recheck(RunRecord(), 1, [kept, moved], {"a": found, "b": B1}) == Changed((Move(moved, found),))


def test_a_claim_of_new_files_never_becomes_one_that_was_read_before() -> None:
    new, everything = Claim(NEW, A2), Claim(ALL, A2)

    changed = recheck(RunRecord(), 1, [new, everything], {"a": A1}, read_ids={A1.file_id})

    assert changed == Changed((Move(new, None), Move(everything, A1)))


def test_an_attempt_that_read_what_has_changed_is_told_so_again() -> None:
    told_before = RunRecord(newest_attempt=1, changed_attempt=1)

    assert recheck(told_before, 1, [Claim(NEW, A2)], {"a": A2}) == Changed(())
    assert recheck(told_before, 2, [Claim(NEW, A2)], {"a": A2}) == Unchanged()


def test_an_older_attempt_does_not_move_what_a_newer_one_has_read() -> None:
    assert recheck(RunRecord(newest_attempt=2), 1, [Claim(NEW, A1)], {"a": A2}) == Over()
    assert recheck(RunRecord(is_settled=True), 1, [Claim(NEW, A1)], {"a": A2}) == Over()


def test_a_page_holds_no_more_than_a_message_may() -> None:
    short, long = [("a.csv", "default/landing/z/a.csv")], [("a" * 900, "b" * 1000)]

    assert fitting(short * 1000) == PAGE_FILES
    assert fitting(short * 3) == 3
    assert 1 < fitting(long * 1000) * 1900 < PAGE_BYTES
    assert fitting([("a" * PAGE_BYTES, "")]) == 1


# Names and their versions


def test_the_first_version_of_a_name_is_current() -> None:
    assert name_changes([], [V1], V1) == NameChanges(arrivals=(Arrival(V1, FileState.LANDED, is_current=True),))


def test_a_newer_version_supersedes_an_unread_one() -> None:
    changes = name_changes([Known(V1.file_id, FileState.LANDED, is_current=True)], [V2], V2)

    assert changes.retired == (V1.file_id, FileState.SUPERSEDED)
    assert changes.arrivals == (Arrival(V2, FileState.LANDED, is_current=True),)


def test_a_newer_version_leaves_a_read_one_processed() -> None:
    known = Known(V1.file_id, FileState.PROCESSED, is_current=True, was_read=True)

    assert name_changes([known], [V2], V2).retired == (V1.file_id, FileState.PROCESSED)


def test_an_older_version_that_is_told_of_late_supersedes_nothing() -> None:
    changes = name_changes([Known(V2.file_id, FileState.LANDED, is_current=True)], [V1], V2)

    assert changes == NameChanges(arrivals=(Arrival(V1, FileState.SUPERSEDED, is_current=False),))
    assert changes.arrivals[0].is_announced


def test_a_version_that_is_told_of_twice_changes_nothing() -> None:
    assert name_changes([Known(V1.file_id, FileState.LANDED, is_current=True)], [V1], V1) == NameChanges()


@pytest.mark.parametrize("state", [FileState.LANDED, FileState.PROCESSED, FileState.REJECTED])
def test_a_file_that_is_gone_is_removed(state: FileState) -> None:
    changes = name_changes([Known(V1.file_id, state, is_current=True)], [], None)

    assert changes == NameChanges(retired=(V1.file_id, FileState.REMOVED))


def test_a_version_that_was_gone_before_anybody_looked_is_not_announced() -> None:
    [arrival] = name_changes([], [V1], None).arrivals

    assert arrival.state is FileState.REMOVED
    assert not arrival.is_announced


@pytest.mark.parametrize(("was_read", "state"), [(False, FileState.LANDED), (True, FileState.PROCESSED)])
def test_a_version_that_shows_again_is_in_the_zone_again(was_read: bool, state: FileState) -> None:
    known = Known(V1.file_id, FileState.SUPERSEDED, is_current=False, was_read=was_read)

    assert name_changes([known], [], V1).restored == (V1.file_id, state)


def test_a_file_that_was_deleted_or_archived_does_not_come_back_from_the_store() -> None:
    known = Known(V1.file_id, FileState.REMOVED, is_current=False, is_withdrawn=True)

    assert name_changes([known], [V1], V1) == NameChanges()


def test_a_name_that_cannot_be_read_is_rejected_and_not_announced() -> None:
    bad = replace(V1, problem="the name has '?'")

    [arrival] = name_changes([], [bad], bad).arrivals

    assert arrival.state is FileState.REJECTED
    assert not arrival.is_announced


# Keys


@pytest.mark.parametrize(
    ("key", "filename"),
    [
        ("default/landing/orders/a.csv", "a.csv"),
        ("default/landing/orders/dt=2026-01-01/x.parquet", "dt=2026-01-01/x.parquet"),
        ("default/landing/orders/x[1].csv", "x[1].csv"),
        ("default/landing/orders/_samples", "_samples"),
        ("default/landing/orders/sub/_samples/a.csv", "sub/_samples/a.csv"),
    ],
)
def test_a_files_name_is_everything_after_the_zone(key: str, filename: str) -> None:
    place = place_of(key)

    assert place == Place("default", "orders", filename)
    assert place.key == key


@pytest.mark.parametrize(
    "key",
    [
        "default/landing/orders/_samples/a.csv",
        "default/landing/orders/_processed/run/a.csv",
        "default/landing/orders/",
        "default/landing/orders/folder/",
        "default/landing/orders",
        "default/pipelines/bronze/orders/pipeline.sql",
        "Default/landing/orders/a.csv",
        "default/landing/orders/a\x00.csv",
    ],
)
def test_other_keys_are_no_files_of_a_zone(key: str) -> None:
    assert place_of(key) is None


@pytest.mark.parametrize("name", ["a?.csv", "../a.csv", "a/../b.csv", "a\n.csv", "a\x7f.csv"])
def test_some_names_cannot_be_read(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a b.csv", "ü+%20.csv", "x[1]*.csv", "a'b\"c.csv", "dt=1/x.csv", "a.b\\c"])
def test_other_names_are_taken_as_they_are(name: str) -> None:
    assert name_problem(name) is None
    assert upload_problem(Place("default", "orders", name)) is None


@pytest.mark.parametrize("name", ["", "a/", "/a.csv", "a//b.csv", "_samples/a.csv", "_processed/a.csv", "ü" * 600])
def test_some_names_cannot_be_uploaded(name: str) -> None:
    assert upload_problem(Place("default", "orders", name))


def notification(name: str, bucket: str = "rat", **fields: object) -> BucketChanged:
    described = {"key": "default%2Flanding%2Forders%2Fa+b%2B.csv", **fields}
    record = {
        "eventName": name,
        "eventTime": "2026-01-01T00:00:00.900Z",
        "s3": {"bucket": {"name": bucket}, "object": described},
    }
    return BucketChanged(event_name=f"s3:{name}", key="rat/…", records=[record])


def test_a_notification_names_a_version_under_its_form_encoded_key() -> None:
    place = Place("default", "orders", "a b+.csv")
    event = notification("ObjectCreated:Put", versionId="v1", eTag='"e"')

    expected = seen("rat", place, version_id="v1", etag="e", size_bytes=0, at=NOW)
    assert list(told(event, "rat")) == [Told(place, expected)]


@pytest.mark.parametrize(
    "event",
    [
        notification("ObjectRemoved:DeleteMarkerCreated", versionId="v2"),
        notification("s3:ObjectRemoved:Delete", versionId="v1"),
        notification("ObjectCreated:Put"),
    ],
)
def test_a_notification_without_a_new_version_says_only_that_something_changed(event: BucketChanged) -> None:
    assert list(told(event, "rat")) == [Told(Place("default", "orders", "a b+.csv"), None)]


@pytest.mark.parametrize(
    "event",
    [notification("ObjectAccessed:Get", versionId="v1"), notification("ObjectCreated:Put", bucket="other")],
)
def test_other_notifications_say_nothing(event: BucketChanged) -> None:
    assert list(told(event, "rat")) == []


def test_a_malformed_notification_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="eventTime"):
        list(told(BucketChanged(event_name="s3:ObjectCreated:Put", key="x", records=[{"s3": {}}]), "rat"))
