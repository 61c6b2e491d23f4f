"""What a dry run would change: schemas side by side."""

from services.runner.engine.changes import schema_changes


def test_columns_are_added_removed_or_of_another_type() -> None:
    before = {"id": "INTEGER", "gone": "VARCHAR", "same": "DATE"}
    after = {"id": "BIGINT", "same": "DATE", "new": "BOOLEAN"}

    found = schema_changes(before, after)

    assert [(one.column, one.change, one.before, one.after) for one in found] == [
        ("new", "added", None, "BOOLEAN"),
        ("gone", "removed", "VARCHAR", None),
        ("id", "type_changed", "INTEGER", "BIGINT"),
    ]
