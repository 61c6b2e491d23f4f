"""A branch of Nessie's has one name for its users, whatever it goes on as."""

import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import ListType, LongType, MapType, NestedField, StringType, StructType

from shared.errors import Invalid
from shared.lakehouse.nessie_names import branch_of, check_name, closed_name, merged_name, prefixes
from shared.lakehouse.nessie_schema import counted_depth_first


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


def test_columns_are_counted_depth_first() -> None:
    inner = StructType(
        NestedField(1, "a", StructType(NestedField(2, "x", LongType()), NestedField(3, "y", LongType()))),
        NestedField(4, "b", LongType()),
    )
    schema = Schema(
        NestedField(1, "c", inner),
        NestedField(2, "m", MapType(3, StringType(), 4, ListType(5, inner, False), False)),
        NestedField(6, "z", LongType()),
    )
    metadata = new_table_metadata(schema, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, "s3://rat/a", {})

    counted = counted_depth_first(metadata)

    names = sorted((counted.schema().find_field(name).field_id, name) for name in counted.schema().column_names)
    assert [name for _, name in names] == [
        "c", "c.a", "c.a.x", "c.a.y", "c.b",
        "m", "m.key", "m.value", "m.value.element", "m.value.element.a", "m.value.element.a.x", "m.value.element.a.y",
        "m.value.element.b", "z",
    ]  # fmt: skip
    assert [number for number, _ in names] == list(range(1, 15))
    assert counted.last_column_id == 14
