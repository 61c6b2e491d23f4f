"""The run protocol keeps its promises in every world that can come to be (`run_model.py`)."""

import pytest

from tests.unit.run_model import Faults, Rules, explore

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(crashes=2, cancels=1, late_files=1),
        Faults(crashes=1, redeliveries=1, late_files=1),
        Faults(redeliveries=1, cancels=1, failing_tests=1),
    ],
    ids=str,
)
def test_nothing_is_lost_doubled_or_reported_wrongly_and_everything_ends(faults: Faults) -> None:
    found = explore(faults)

    assert found.broken is None, " → ".join(found.story)
    print(f"{found.worlds} worlds")


@pytest.mark.parametrize(
    ("rules", "faults"),
    [
        (Rules(attempt_is_checked=False), Faults(redeliveries=1, cancels=1)),
        (Rules(later_attempts_look_back=False), Faults(crashes=1, late_files=1)),
        (Rules(empty_answers_are_kept=False), Faults(redeliveries=1, late_files=1)),
        (Rules(runs_without_claims_are_settled=False), Faults(redeliveries=1, cancels=1)),
    ],
    ids=str,
)
def test_each_of_these_rules_is_needed(rules: Rules, faults: Faults) -> None:
    assert explore(faults).broken is None
    assert explore(faults, rules).broken is not None
