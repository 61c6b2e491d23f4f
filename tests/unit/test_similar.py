"""What may have been meant by a word that is not known."""

import pytest

from shared.similar import closest, did_you_mean, expected


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("amonut", ["id", "amount", "name"], "amount"),
        ("ID", ["id"], "id"),
        ("x", ["amount"], None),
        ("default.bronze.order", ["default.bronze.orders", "default.bronze.lines"], "default.bronze.orders"),
        ("default.bronze.orders", ["default.silver.orders", "other.silver.orders"], "default.silver.orders"),
        ("default.bronze.a", ["default.bronze.b"], None),
        ("default/order", ["default/orders"], "default/orders"),
        ("anything", [], None),
    ],
)
def test_the_known_word_is_the_one_that_is_most_alike(word: str, known: list[str], meant: str | None) -> None:
    assert closest(word, known) == meant


def test_a_message_names_the_one_that_was_meant_or_all() -> None:
    assert did_you_mean("wran", ["error", "warn"]) == ", did you mean 'warn'?"
    assert did_you_mean("fatal", ["error", "warn"]) == ""
    assert expected("fatal", ["error", "warn"]) == ", expected one of error, warn"
