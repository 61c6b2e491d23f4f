"""A branch of Nessie's has one name for its users, whatever it goes on as."""

import pytest

from shared.errors import Invalid
from shared.lakehouse.nessie.names import branch_of, check_name, closed_name, merged_name, prefixes


@pytest.mark.parametrize("branch", ["run-5b1c-1", "drop-x", "x"])
def test_a_closed_branch_is_known_by_the_name_that_it_was_made_under(branch: str) -> None:
    assert branch_of(branch) == (branch, False)
    assert branch_of(closed_name(branch)) == (branch, True)
    assert branch_of(merged_name(branch)) == (branch, True)
    for prefix in ("", branch, branch[:5]):
        for reference in (branch, closed_name(branch), merged_name(branch)):
            assert any(reference.startswith(start) for start in prefixes(prefix))


def test_the_branch_of_a_run_goes_on_as_failed_or_merged() -> None:
    assert closed_name("run-5b1c-1") == "failed-5b1c-1"
    assert merged_name("run-5b1c-1") == "merged-5b1c-1"


@pytest.mark.parametrize("name", ["", "0a1", "failed-1-1", "merged-x", "a..b", "a b", "-a", "a.", "a/b"])
def test_what_cannot_be_the_name_of_a_branch_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="cannot be the name of a branch"):
        check_name(name)
